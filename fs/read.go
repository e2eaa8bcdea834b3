package fs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// readMemory answers a READ of memory: the path of a page fault. It takes no lock that is held over
// I/O or by a pusher, allocates nothing, and does not look at cancel: an interrupted READ would be
// a SIGBUS in the VMM.
func (s *Server) readMemory(m *memoryFile, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if m.poisoned.Load() {
		return nil, fuse.EIO
	}
	if in.Offset >= m.size || len(buf) == 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	h := m.e.img.Load()
	if h == nil {
		var err error
		if h, err = s.image(m.e); err != nil {
			s.complain(m.e, "open image", err)
			return nil, fuse.EIO
		}
	}
	length := min(uint64(len(buf)), m.size-in.Offset)
	if length > PageSize && s.refuses(m, in, length) {
		return nil, fuse.EAGAIN
	}
	r := s.begin(m, h, in, length)
	if r.follow && r.count == 1 && m.coming.has(r.first) && !m.storing.has(r.first) {
		m.coming.wait(r.first)
	}
	if err := s.fill(r, in.Offset, buf[:length]); err != nil {
		r.sess.errors.Add(1)
		s.metrics.readErrors.Add(1)
		s.complain(m.e, "read", err)
		r.fail()
		return nil, fuse.EIO
	}
	// It was poisoned meanwhile: right bytes must not come back between wrong ones.
	if m.poisoned.Load() {
		r.fail()
		return nil, fuse.EIO
	}
	r.data = buf[:length]
	if r.cached {
		// Resident is set before in flight is cleared: a pusher must see one of them at any time.
		// And before a drop that waits for the answer.
		r.sess.resident.addRange(r.first, r.count)
	}
	r.landed()
	// A READ of many pages mostly costs copying, and a push copies as much. Pushing ahead of its
	// reader is worth it only where decoding takes longer than copying.
	if r.count >= bigRead && time.Since(r.start) < time.Duration(r.count)*copyTime {
		r.follow = false
	}
	return r, fuse.OK
}

const (
	// bigRead is in pages: what read(2) with a large buffer asks for.
	bigRead = 16
	// copyTime is above the time that copying a page takes, and below that of any decoder.
	copyTime = 1200 * time.Nanosecond
)

// refuses says whether a READ of several pages is refused while reads are recorded. Only the kernel's
// reading ahead into the page cache is, because it makes no error of that: whoever needs one of the pages
// asks for it again. A page is refused once at most, so that READs which have to have several pages at once
// are answered.
func (s *Server) refuses(m *memoryFile, in *fuse.ReadIn, length uint64) bool {
	first := in.Offset / PageSize
	count := (length + PageSize - 1) / PageSize
	sess := m.sess.Load()
	if in.ReadFlags&fuse.READ_LOCKOWNER != 0 || in.Flags&syscall.O_DIRECT != 0 ||
		in.Offset%PageSize != 0 || s.opts.ReadAhead != PageSize || sess.refused.any(first, count) ||
		!sess.epoch.refuses(source{in.Pid, m.node}, count, time.Now()) {
		return false
	}
	sess.refused.addRange(first, count)
	return true
}

// begin does the book-keeping of a READ that has come in.
func (s *Server) begin(m *memoryFile, h *openImage, in *fuse.ReadIn, length uint64) *reply {
	first := in.Offset / PageSize
	count := (in.Offset+length+PageSize-1)/PageSize - first
	now := time.Now()
	r := s.replies.get()
	sess := m.sess.Load()
	*r = reply{
		srv: s, m: m, sess: sess, h: h, first: first, count: count, start: now,
	}
	r.stall(true, now)

	s.demand.begin()
	sess.lazyRequests.Add(1)
	s.metrics.readBytes.Add(length)
	if in.ReadFlags&fuse.READ_LOCKOWNER != 0 {
		// It bypasses the page cache: no page is locked or first touched, and none will be resident.
		// O_DIRECT does not decide this: a mapping of such a file is read like any other.
		return r
	}
	r.cached = true
	m.inflight.addRange(first, count)
	sess.lazyPages.Add(uint64(sess.touched.addRange(first, count)))
	w := sess.watch.Load()
	if again := sess.resident.removeRange(first, count); again > 0 {
		sess.evicted.Add(uint64(again))
	} else {
		w.read(m, first, count, now)
	}
	if l := sess.landing.Load(); l != nil && !w.leavesOut(first) && l.asked(first, count) {
		r.late = &l.late
	}
	alone := sess.refused.removeRange(first, count) > 0 && count == 1
	sess.epoch.read(source{in.Pid, m.node}, first, count, alone, now)
	if !alone { // else what reads may be a copy
		m.e.asked.read(first, count)
	}
	r.follow = s.opts.ReadAhead == PageSize && !s.opts.NoPush && !sess.epoch.exclusive(now) &&
		!w.on()
	return r
}

// fill reads the bytes at off; all but readers that go past the page cache ask for whole pages. A
// panic in it becomes an error.
func (s *Server) fill(r *reply, off uint64, dst []byte) (err error) {
	defer s.rescueErr("READ", &err)
	m, mem := r.m, r.h.mem
	if off%PageSize == 0 && len(dst) == PageSize && !m.hole(r.first, 1) {
		return s.readPage(r, dst)
	}
	if off%PageSize == 0 && len(dst)%PageSize == 0 {
		return m.read(mem, off/PageSize, dst)
	}
	first := off / PageSize
	end := (off + uint64(len(dst)) + PageSize - 1) / PageSize
	whole := make([]byte, (end-first)*PageSize)
	if err := m.read(mem, first, whole); err != nil {
		return err
	}
	copy(dst, whole[off-first*PageSize:])
	return nil
}

// read reads whole pages, as they are in this file.
func (m *memoryFile) read(mem Image, first uint64, dst []byte) error {
	if h := m.holes.Load(); h != nil && h.any(first, uint64(len(dst)/PageSize)) {
		return m.readHoles(mem, h, first, dst)
	}
	return readPages(mem, first, dst)
}

// readPages reads whole pages of the image.
func readPages(mem Image, first uint64, dst []byte) error {
	if len(dst) == PageSize {
		return mem.ReadPage(first, dst)
	}
	return mem.ReadRange(first, dst)
}
