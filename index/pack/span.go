package pack

import "fmt"

// Span is the stored bytes of consecutive slots: fetched, and not decoded. So reading, which may
// have to be done in order, and decoding, which takes a processor, can be done at different times
// and by different goroutines, and a block that one page was wanted of is there for the others. A
// Span that was fetched may be read by many goroutines at once.
type Span struct {
	r     *Reader
	parts []spanPart
	buf   []byte
	err   error // of the last range that was left out; nil: none
}

// spanPart is a range of the file that lies in buf from at on.
type spanPart struct {
	off int64
	n   int
	at  int
}

// Fetch reads what is stored of count slots from first on into s, which keeps its memory from one
// Fetch to the next. Slots that lie together are read at once, up to 1 MiB at a time. What lies on a
// bad sector is left out, and an error of the slots that it is of; so is what there is not. An error
// of Fetch is about all of it.
func (r *Reader) Fetch(first uint32, count int, s *Span) error {
	s.reset(r)
	end := uint32(min(uint64(first)+uint64(count), uint64(len(r.dir.slots))))
	if err := s.fetchBlocks(first, end); err != nil {
		return err
	}
	for slot := first; slot < end && r.Clusters() > 0; slot++ {
		e := r.dir.slots[slot]
		if e.codec != codecClustered {
			continue
		}
		if e.len > 0 && r.dir.slotsOf(int(e.off))[e.len-1] >= first {
			continue // it was fetched with that one
		}
		if err := s.fetchClusters(int(e.off), int(e.off)+1); err != nil {
			return err
		}
	}
	return nil
}

// reset empties a span for a reader.
func (s *Span) reset(r *Reader) {
	*s = Span{r: r, parts: s.parts[:0], buf: s.buf[:0]}
}

// fetchBlocks fetches what blocks have of the slots from slot to before end.
func (s *Span) fetchBlocks(slot, end uint32) error {
	for slot < end {
		if !s.r.dir.slots[slot].inBlock() {
			slot++
			continue
		}
		stop, last := s.r.beside(slot, end)
		off := s.r.dir.slots[slot].off
		err := s.fetch(int64(off), int(last-off))
		if local(err) {
			err = s.fetchUnits(slot, stop)
		}
		if err != nil {
			return err
		}
		slot = stop
	}
	return nil
}

// fetchClusters fetches the clusters from c to before end, those that lie together at once.
func (s *Span) fetchClusters(c, end int) error {
	all := s.r.dir.clusters
	for c < end {
		off, stop := all[c].off, c
		last := off
		for stop < end && all[stop].off == last && (stop == c || last-off <= maxReadBytes) {
			last += all[stop].stored
			stop++
		}
		err := s.fetch(int64(off), int(last-off))
		for i := c; local(err) && i < stop; i++ {
			if err1 := s.fetch(int64(all[i].off), int(all[i].stored)); local(err1) {
				s.err = err1
			} else if err1 != nil {
				return err1
			}
		}
		if err != nil && !local(err) {
			return err
		}
		c = stop
	}
	return nil
}

// beside is together, beyond slots of which nothing is stored in the blocks.
func (r *Reader) beside(slot, end uint32) (stop, last uint32) {
	start := r.dir.slots[slot].off
	stop, last = r.together(slot, end)
	for next := stop; next < end; next++ {
		e := r.dir.slots[next]
		if !e.inBlock() {
			continue
		}
		if e.off != last || last-start > maxReadBytes {
			break
		}
		stop, last = r.together(next, end)
		next = stop - 1
	}
	return stop, last
}

// fetchUnits fetches the units of slots one by one, and leaves out what cannot be read.
func (s *Span) fetchUnits(slot, stop uint32) error {
	for slot < stop {
		e := s.r.dir.slots[slot]
		if !e.inBlock() {
			slot++
			continue
		}
		if err := s.fetch(int64(e.off), int(e.len)); err != nil {
			if !local(err) {
				return err
			}
			s.err = err
		}
		slot += uint32(e.pages() - e.index())
	}
	return nil
}

// fetch adds a range of the file, which follows all others.
func (s *Span) fetch(off int64, n int) error {
	at := len(s.buf)
	if cap(s.buf) < at+n {
		s.buf = append(make([]byte, 0, at+n), s.buf...)
	}
	if err := s.r.read(s.buf[at:at+n], off); err != nil {
		return err
	}
	s.buf = s.buf[:at+n]
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
	if s.err != nil {
		return s.err
	}
	return fmt.Errorf("read pack %s: %d bytes at %d were not fetched", s.r.name, len(b), off)
}

// ReadSlots is Reader.ReadSlots out of the span.
func (s *Span) ReadSlots(first uint32, dst []byte, bad *BadSlots) {
	s.r.readSlots(s, first, dst, bad)
}

// ReadSpots is Reader.ReadSpots out of the span.
func (s *Span) ReadSpots(first uint32, dst []byte, bad *BadSlots) {
	s.r.readSpots(s, first, dst, bad)
}

// ReadPage is Reader.ReadPage out of the span.
func (s *Span) ReadPage(slot uint32, dst []byte) error {
	return s.r.readPage(s, slot, dst)
}
