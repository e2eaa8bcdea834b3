package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Lseek implements fuse.RawFileSystem: where there is data in memory, and where a hole. The kernel asks for
// SEEK_DATA and SEEK_HOLE only. Pages of zeros are holes, and of a clone those that its machine discarded.
// Other files have no holes.
//
// It reads nothing, and takes no lock that is held over I/O or over a push.
func (r *raw) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) (status fuse.Status) {
	defer r.s.rescue("LSEEK", &status)
	n := r.s.tree.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	var x extents
	switch n.kind {
	case kindMemory, kindCloneMem:
		m := r.s.memoryOf(n)
		if m.poisoned.Load() {
			return fuse.EIO
		}
		h := m.e.img.Load()
		if h == nil {
			var err error
			if h, err = r.s.image(m.e); err != nil {
				r.s.complain(m.e, "open image", err)
				return fuse.EIO
			}
		}
		x = memoryExtents{m, h.mem, m.holes.Load()}
	case kindStats, kindCloneStats, kindMetrics:
		text, _ := r.s.liveTexts.get(in.Fh)
		x = solid(len(text))
	default:
		x = solid(n.size)
	}
	out.Offset, status = seek(x, in.Offset, in.Whence)
	return status
}

// extents say where a file has data.
type extents interface {
	size() uint64
	// data is the first offset from off on, which is below size, that has data; size if there is none.
	data(off uint64) uint64
	// hole is the first one that has none; size if there is none: the end of a file is one.
	hole(off uint64) uint64
}

// seek is lseek(2) for SEEK_DATA and SEEK_HOLE.
func seek(x extents, off uint64, whence uint32) (uint64, fuse.Status) {
	size := x.size()
	if off >= size {
		return 0, fuse.Status(syscall.ENXIO)
	}
	switch whence {
	case unix.SEEK_DATA:
		if at := x.data(off); at < size {
			return at, fuse.OK
		}
		return 0, fuse.Status(syscall.ENXIO)
	case unix.SEEK_HOLE:
		return x.hole(off), fuse.OK
	}
	return 0, fuse.EINVAL
}

// solid is a file without holes, of so many bytes.
type solid int64

func (s solid) size() uint64           { return uint64(s) }
func (s solid) data(off uint64) uint64 { return off }
func (s solid) hole(uint64) uint64     { return uint64(s) }

// memoryExtents are those of a memory file, with the pages that were discarded.
type memoryExtents struct {
	m     *memoryFile
	image Image
	holes *holes // nil: none
}

func (x memoryExtents) size() uint64 { return x.m.size }

func (x memoryExtents) data(off uint64) uint64 {
	page := off / PageSize
	for page < x.m.pages {
		next := x.image.NextData(page)
		if x.holes != nil && next < x.m.pages {
			if end := x.holes.next(next, false); end > next {
				page = end
				continue
			}
		}
		page = next
		break
	}
	return max(off, min(page, x.m.pages)*PageSize)
}

func (x memoryExtents) hole(off uint64) uint64 {
	page := x.image.NextZero(off / PageSize)
	if x.holes != nil {
		page = min(page, x.holes.next(off/PageSize, true))
	}
	return max(off, page*PageSize)
}
