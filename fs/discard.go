package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Fallocate implements fuse.RawFileSystem: a machine with a balloon returns pages. Whole pages of a
// clone can be punched out; they read as zeros from then on, and the kernel drops them from the page
// cache when it has the answer. Anybody who has the file open for writing may do it: OPEN has checked
// the owner.
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
	r.s.tree.pin(n)
	m.discard(in.Offset/PageSize, in.Length/PageSize)
	return fuse.OK
}

// discard makes pages read as zeros. While the gate is held nobody pushes, and later
// pushes see the holes. A READ that has read the old bytes has its pages locked: the kernel waits for it
// before it drops them.
func (m *memoryFile) discard(first, count uint64) {
	m.gate.Lock()
	defer m.gate.Unlock()
	h := m.holes.Load()
	if h == nil {
		h = newBitmap(m.pages)
		m.holes.Store(h)
	}
	h.addRange(first, count)
	m.sess.Load().resident.removeRange(first, count)
}

// readHoles reads the image for a clone that has holes in the range: they read as zeros, and the
// store is asked for what lies between them only. READs of other clones do not come here.
func (m *memoryFile) readHoles(mem Image, holes *bitmap, first uint64, dst []byte) error {
	for count := uint64(len(dst) / PageSize); count > 0; {
		n, hole := uint64(1), holes.has(first)
		for n < count && holes.has(first+n) == hole {
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
