package fs

import (
	"fmt"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// holes are the pages that the machine on a clone discarded: they read as zeros. They are that machine's:
// the next one that opens the clone finds the image.
type holes struct {
	*bitmap
	// ended is closed when they are no more.
	ended chan struct{}
}

// Fallocate implements fuse.RawFileSystem: a machine with a balloon returns pages. Whole pages of a
// clone can be punched out; they read as zeros until the clone is closed, and the kernel drops them from
// the page cache when it has the answer. Every process that has the file open for writing may do it: OPEN
// has checked the owner.
//
// Allocation is refused as by a read-only file system: after EOPNOTSUPP posix_fallocate(3) would write,
// which poisons the clone.
func (r *raw) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) (status fuse.Status) {
	defer r.s.rescue("FALLOCATE", &status)
	n := r.s.tree.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	switch {
	case n.kind != kindCloneMem || in.Mode&^uint32(unix.FALLOC_FL_KEEP_SIZE) == 0:
		return fuse.EROFS
	case in.Mode != unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE:
		return fuse.Status(syscall.EOPNOTSUPP)
	case in.Offset%PageSize != 0 || in.Length%PageSize != 0:
		return fuse.EINVAL
	}
	m := r.s.memoryOf(n)
	if m.poisoned.Load() {
		return fuse.EIO
	}
	r.s.discard(m, in.Offset/PageSize, in.Length/PageSize)
	return fuse.OK
}

// discard makes pages read as zeros. It is called for an open file, so no end of holes goes on.
// While the gate is held nobody pushes, and later pushes see the holes. A READ that has read the old
// bytes has its pages locked: the kernel waits for it before it drops them.
func (s *Server) discard(m *memoryFile, first, count uint64) {
	m.gate.Lock()
	defer m.gate.Unlock()
	h := m.holes.Load()
	if h == nil {
		h = &holes{newBitmap(m.pages), make(chan struct{})}
		m.holes.Store(h)
	}
	h.addRange(first, count)
	s.ledger.discarded(m.key(), h.bitmap, first, count)
	m.sess.Load().resident.removeRange(first, count)
}

// endHoles makes a clone the image again when the machine that discarded pages has closed it. Nothing
// reads the clone meanwhile: RELEASE comes after the last mapping is gone and the last READ answered, and
// OPEN waits for the end (lockWhole). So it may be called by RELEASE, until whose answer the kernel keeps
// the inode. Pushes that go on belong to the session before.
func (s *Server) endHoles(m *memoryFile) {
	h := m.holes.Load()
	dropped := false
	defer func() {
		if !dropped { // zeros may be in the page cache
			m.poisoned.Store(true)
			s.tree.pin(m.node)
		}
		m.holes.Store(nil)
		close(h.ended)
	}()
	m.gate.Lock()
	defer m.gate.Unlock()
	m.retire()
	st := s.always().InodeNotify(m.node, 0, 0)
	if dropped = st.Ok() || st == fuse.ENOENT; dropped {
		s.ledger.whole(m.key())
	}
	if !dropped {
		s.complain(m.e, "drop a clone that was closed", fmt.Errorf("notify: %v", st))
	}
}

// retire begins another session in the same epoch. m.gate is held.
func (m *memoryFile) retire() {
	e := m.e
	e.mu.Lock()
	defer e.mu.Unlock()
	sess := m.sess.Load()
	if sess.epoch == e.epoch.Load() {
		e.retired.add(sess.load())
	}
	m.sess.Store(m.newSession(sess.epoch))
	m.streams.reset()
}

// releaseTime is how long an OPEN waits for the RELEASE of a machine that has just ended: the kernel sends
// it in the background.
const releaseTime = time.Second

// lockWhole locks e.mu for an open that is not the prober's, when m has no holes of a machine that has
// ended. A machine that opens a clone which another one has open shares its holes.
func (s *Server) lockWhole(m *memoryFile) {
	late := time.NewTimer(releaseTime)
	defer late.Stop()
	for shared := false; ; {
		m.e.mu.Lock()
		h := m.holes.Load()
		used := m.opens > m.probes
		if h == nil || m.poisoned.Load() || used && shared || s.ctx.Err() != nil {
			return
		}
		m.e.mu.Unlock()
		var patience <-chan time.Time
		if used {
			patience = late.C
		}
		select {
		case <-h.ended:
		case <-patience:
			shared = true
		case <-s.ctx.Done():
		}
	}
}

// readHoles reads the image for a clone that has holes in the range: they read as zeros, and the
// store is asked for what lies between them only. READs of other clones do not come here.
func (m *memoryFile) readHoles(mem Image, h *holes, first uint64, dst []byte) error {
	for count := uint64(len(dst) / PageSize); count > 0; {
		n, hole := uint64(1), h.has(first)
		for n < count && h.has(first+n) == hole {
			n++
		}
		part := dst[:n*PageSize]
		if hole {
			clear(part)
		} else if err := readPages(mem, first, part); err != nil {
			return err
		}
		first, count, dst = first+n, count-n, dst[n*PageSize:]
	}
	return nil
}
