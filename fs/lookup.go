package fs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/thawfs/thaw/index"
)

// child describes what a name in a directory is.
func (s *Server) child(parent *node, name string) (*node, fuse.Status) {
	var want *node
	switch parent.kind {
	case kindRoot:
		if name == dirControl {
			return s.tree.ctl, fuse.OK
		}
		if e := s.tree.entry(name); e != nil {
			want = e.dir()
		}
	case kindControl:
		switch {
		case name == "metrics":
			want = &node{kind: kindMetrics}
		case name == "socket" && s.opts.ControlSocket != "":
			want = &node{kind: kindSocket}
		}
	case kindCheckpoint:
		want = parent.e.child(name)
	case kindClones:
		// Any name that a checkpoint could have is a clone that exists.
		if index.CheckName(name) == nil {
			want = &node{kind: kindClone, e: parent.e, detail: name}
		}
	case kindClone:
		want = parent.e.cloneChild(parent.detail, name)
	default:
		return nil, fuse.ENOTDIR
	}
	if want == nil {
		return nil, fuse.ENOENT
	}
	return want, fuse.OK
}

// fillEntry is the answer to a lookup.
func (s *Server) fillEntry(n *node, out *fuse.EntryOut) {
	out.NodeId = n.id
	out.Generation = 1
	out.SetEntryTimeout(keep)
	out.SetAttrTimeout(keep)
	s.fillAttr(n, &out.Attr)
}

// fillAttr gives a node's attributes; they never change while the node has its number.
func (s *Server) fillAttr(n *node, a *fuse.Attr) {
	*a = fuse.Attr{
		Ino:     n.id,
		Mode:    n.mode(),
		Nlink:   1,
		Owner:   s.owner,
		Size:    uint64(n.size),
		Blocks:  (uint64(n.size) + 511) / 512,
		Blksize: 128 << 10, // what one READ carries: programs size their buffers by it
	}
	if a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		a.Nlink = 2
	}
	if n.kind == kindSocket {
		a.Size = uint64(len(s.opts.ControlSocket))
	}
	created := s.began
	if n.e != nil {
		created = n.e.info.Load().Created
	}
	if created.Unix() < 0 {
		created = time.Unix(0, 0) // not known; the wire has no time before it
	}
	a.SetTimes(&created, &created, &created)
}

// mode is the type and the permissions of a node. Who may use the mount at all is decided by the
// kernel (Options.AllowOther).
func (n *node) mode() uint32 {
	switch n.kind {
	case kindRoot, kindControl, kindCheckpoint, kindClones, kindClone:
		return syscall.S_IFDIR | 0o555
	case kindSocket:
		return syscall.S_IFLNK | 0o777
	case kindCloneMem:
		return syscall.S_IFREG | 0o666
	}
	return syscall.S_IFREG | 0o444
}
