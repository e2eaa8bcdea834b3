package fs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// raw is the server as go-fuse sees it. Operations that it does not have return ENOSYS, and the kernel
// does not ask again: extended attributes, locks, copy_file_range.
type raw struct {
	fuse.RawFileSystem
	s *Server
}

var _ fuse.RawFileSystem = (*raw)(nil)

// keep is how long the kernel may believe names and attributes: nothing changes without a
// notification, except the owner of a clone that has none yet (fillAttr). A name that is not there
// is never kept, so that new checkpoints are seen at once.
const keep = time.Hour

func (r *raw) String() string { return "thaw" }

// Init implements fuse.RawFileSystem.
func (r *raw) Init(srv *fuse.Server) {
	r.s.kernel = srv
	if r.s.device >= 0 {
		r.s.kernel = &notifyDevice{notifier: srv, fd: r.s.device}
	}
	if r.s.opts.TakeOver {
		r.s.kernel = &gate{notifier: r.s.kernel}
	}
}

// Lookup implements fuse.RawFileSystem.
func (r *raw) Lookup(
	_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut,
) (status fuse.Status) {
	defer r.s.rescue("LOOKUP", &status)
	parent := r.s.tree.node(in.NodeId)
	if parent == nil {
		return fuse.Status(syscall.ESTALE)
	}
	want, status := r.s.child(parent, name)
	if !status.Ok() {
		if parent == r.s.tree.root {
			r.s.lookAgain()
		}
		return status
	}
	r.s.fillEntry(r.s.lookedUp(want), out)
	return fuse.OK
}

// Forget implements fuse.RawFileSystem.
func (r *raw) Forget(id, count uint64) {
	defer r.s.rescue("FORGET", nil)
	if n := r.s.tree.forget(id, count); n != nil {
		r.s.forgot(n)
	}
}

// GetAttr implements fuse.RawFileSystem.
func (r *raw) GetAttr(
	_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut,
) (status fuse.Status) {
	defer r.s.rescue("GETATTR", &status)
	n := r.s.tree.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	out.SetTimeout(r.s.fillAttr(n, &out.Attr))
	return fuse.OK
}

// Readlink implements fuse.RawFileSystem.
func (r *raw) Readlink(
	_ <-chan struct{}, in *fuse.InHeader,
) (target []byte, status fuse.Status) {
	defer r.s.rescue("READLINK", &status)
	n := r.s.tree.node(in.NodeId)
	if n == nil || n.kind != kindSocket {
		return nil, fuse.EINVAL
	}
	return []byte(r.s.opts.ControlSocket), fuse.OK
}

// Access implements fuse.RawFileSystem.
func (r *raw) Access(_ <-chan struct{}, in *fuse.AccessIn) (status fuse.Status) {
	defer r.s.rescue("ACCESS", &status)
	n := r.s.tree.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if in.Mask&fuse.W_OK != 0 && n.kind != kindCloneMem {
		return fuse.EROFS
	}
	return fuse.OK
}

// StatFs implements fuse.RawFileSystem: the size of all images, none of it free.
func (r *raw) StatFs(
	_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut,
) (status fuse.Status) {
	defer r.s.rescue("STATFS", &status)
	*out = fuse.StatfsOut{Bsize: PageSize, Frsize: PageSize, NameLen: 255}
	for _, e := range r.s.tree.entries() {
		out.Blocks += e.pages()
		out.Files++
	}
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (r *raw) Read(
	_ <-chan struct{}, in *fuse.ReadIn, buf []byte,
) (res fuse.ReadResult, status fuse.Status) {
	defer r.s.rescue("READ", &status)
	n := r.s.tree.node(in.NodeId)
	if n == nil {
		return nil, fuse.Status(syscall.ESTALE)
	}
	switch n.kind {
	case kindMemory, kindCloneMem:
		m := n.mem.Load()
		if m == nil {
			m = r.s.memoryOf(n)
		}
		return r.s.readMemory(m, in, buf)
	case kindFile:
		return r.s.readStored(n, in, buf)
	case kindComposed:
		return r.s.readComposed(n, in, buf)
	case kindInfo:
		return slice(n.content, in.Offset, buf), fuse.OK
	case kindStats, kindCloneStats, kindMetrics:
		text, ok := r.s.liveTexts.get(in.Fh)
		if !ok {
			return nil, fuse.Status(syscall.ESTALE) // another server has opened it, with another text
		}
		return slice(text, in.Offset, buf), fuse.OK
	}
	return nil, fuse.Status(syscall.EISDIR)
}

// Write implements fuse.RawFileSystem. Only clones can be open for writing, and they
// cannot keep writes: a write is refused and poisons the clone.
func (r *raw) Write(
	_ <-chan struct{}, in *fuse.WriteIn, _ []byte,
) (written uint32, status fuse.Status) {
	defer r.s.rescue("WRITE", &status)
	n := r.s.tree.node(in.NodeId)
	if n != nil && n.kind == kindCloneMem {
		r.s.poison(n)
	}
	return 0, fuse.EROFS
}

// Fsync implements fuse.RawFileSystem.
func (r *raw) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) (status fuse.Status) {
	defer r.s.rescue("FSYNC", &status)
	n := r.s.tree.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if m := n.mem.Load(); m != nil && m.poisoned.Load() {
		return fuse.EIO
	}
	return fuse.OK
}

// Operations that would change the tree fail as on a read-only file system.

func (r *raw) SetAttr(<-chan struct{}, *fuse.SetAttrIn, *fuse.AttrOut) fuse.Status {
	return fuse.EROFS
}

func (r *raw) Mknod(<-chan struct{}, *fuse.MknodIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}

func (r *raw) Mkdir(<-chan struct{}, *fuse.MkdirIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}

func (r *raw) Unlink(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EROFS }

func (r *raw) Rmdir(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return fuse.EROFS }

func (r *raw) Rename(<-chan struct{}, *fuse.RenameIn, string, string) fuse.Status {
	return fuse.EROFS
}

func (r *raw) Link(<-chan struct{}, *fuse.LinkIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}

func (r *raw) Symlink(<-chan struct{}, *fuse.InHeader, string, string, *fuse.EntryOut) fuse.Status {
	return fuse.EROFS
}

func (r *raw) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.EROFS
}

func (r *raw) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status {
	return fuse.EROFS
}
