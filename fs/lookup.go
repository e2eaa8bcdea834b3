package fs

import (
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
	out.SetAttrTimeout(s.fillAttr(n, &out.Attr))
}

// fillAttr sets a node's attributes and how long they hold. They never change while the node has its
// number, except those of a clone that has no owner yet.
func (s *Server) fillAttr(n *node, a *fuse.Attr) (valid time.Duration) {
	valid = keep
	*a = fuse.Attr{
		Ino:     n.id,
		Mode:    s.mode(n),
		Nlink:   1,
		Owner:   s.guard.owner,
		Size:    uint64(n.size),
		Blocks:  (uint64(n.size) + 511) / 512,
		Blksize: 128 << 10, // what one READ carries: programs size their buffers by it
	}
	switch {
	case n.dir():
		a.Nlink = 2
	case n.kind == kindMemory, n.kind == kindCloneMem:
		// Its other names are links to it, and its zero pages take no room: cp and tar look for holes in a
		// file only if it has fewer blocks than its size.
		c := n.e.info.Load()
		a.Nlink += uint32(len(c.aliases()))
		a.Blocks = min(a.Blocks, c.DataPages*(PageSize/512))
	}
	if n.kind == kindSocket {
		a.Size = uint64(len(s.opts.ControlSocket))
	}
	if n.kind == kindSocket || n.kind == kindMetrics {
		a.Owner = s.guard.server
	}
	created := s.began
	if n.e != nil {
		created = n.e.info.Load().Created
	}
	if created.Unix() < 0 {
		created = time.Unix(0, 0) // not known; the wire has no time before it
	}
	a.SetTimes(&created, &created, &created)
	if n.kind == kindCloneMem {
		if owner := n.owner(); owner != nil {
			a.Owner = *owner
		} else {
			valid = 0
		}
	}
	return valid
}

// owner is the owner of a clone; nil if it has none yet, and for all other nodes.
func (n *node) owner() *fuse.Owner {
	if m := n.mem.Load(); m != nil {
		return m.owner.Load()
	}
	return nil
}

func (n *node) dir() bool {
	switch n.kind {
	case kindRoot, kindControl, kindCheckpoint, kindClones, kindClone:
		return true
	}
	return false
}
