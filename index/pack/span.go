package pack

import "fmt"

// Span is the stored bytes of consecutive slots: fetched, and not decoded. So reading, which may
// have to be done in order, and decoding, which takes a processor, can be done at different times
// and by different goroutines, and a block that one page was wanted of is there for the others. A
// Span that was fetched may be read by many goroutines at once.
type Span struct {
	r     *Reader
	first uint32
	count int
	parts []spanPart
	buf   []byte
}

// spanPart is a range of the file that lies in buf from at on.
type spanPart struct {
	off int64
	n   int
	at  int
}

// Fetch reads what is stored of count slots from first on into s, which keeps its memory from one
// Fetch to the next. Slots that lie together are read at once, up to 1 MiB at a time.
func (r *Reader) Fetch(first uint32, count int, s *Span) error {
	end, err := r.endOf(first, count)
	if err != nil {
		return err
	}
	*s = Span{r: r, first: first, count: count, parts: s.parts[:0], buf: s.buf[:0]}
	for slot := first; slot < end; {
		if r.Dead(slot) {
			slot++
			continue
		}
		stop, last := r.together(slot, end)
		off, n := r.dir.slots[slot].off, int(last-r.dir.slots[slot].off)
		if err := s.fetch(int64(off), n); err != nil {
			return err
		}
		slot = stop
	}
	return nil
}

// fetch adds a range of the file, which follows all others.
func (s *Span) fetch(off int64, n int) error {
	at := len(s.buf)
	if cap(s.buf) < at+n {
		s.buf = append(make([]byte, 0, at+n), s.buf...)
	}
	s.buf = s.buf[:at+n]
	if err := s.r.read(s.buf[at:], off); err != nil {
		return err
	}
	if i := len(s.parts) - 1; i >= 0 && s.parts[i].off+int64(s.parts[i].n) == off {
		s.parts[i].n += n
		return nil
	}
	s.parts = append(s.parts, spanPart{off: off, n: n, at: at})
	return nil
}

// read implements stored.
func (s *Span) read(b []byte, off int64) error {
	for _, p := range s.parts {
		if off >= p.off && off+int64(len(b)) <= p.off+int64(p.n) {
			copy(b, s.buf[p.at+int(off-p.off):])
			return nil
		}
	}
	return fmt.Errorf("read pack %s: %d bytes at %d were not fetched", s.r.name, len(b), off)
}

// ReadSlots is Reader.ReadSlots out of the span.
func (s *Span) ReadSlots(first uint32, dst []byte) error {
	end := uint64(first) + uint64(len(dst)/PageSize)
	if first < s.first || end > uint64(s.first)+uint64(s.count) {
		return fmt.Errorf("read pack %s: slots %d to %d were not fetched", s.r.name, first, end)
	}
	return s.r.readSlots(s, first, dst)
}

// ReadPage is Reader.ReadPage out of the span: a dead slot is an error.
func (s *Span) ReadPage(slot uint32, dst []byte) error {
	if s.r.Dead(slot) {
		return s.r.slotError(slot, ErrDead)
	}
	return s.ReadSlots(slot, dst[:PageSize])
}
