package fs

import (
	"slices"
	"sort"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// OpenDir implements fuse.RawFileSystem. Directories have no handle: a listing is computed from the
// offset, which is a function of the entry and not of its place, so that it survives changes.
func (r *raw) OpenDir(
	_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut,
) (status fuse.Status) {
	defer r.s.rescue("OPENDIR", &status)
	n := r.s.tree.node(in.NodeId)
	switch {
	case n == nil:
		return fuse.Status(syscall.ESTALE)
	case !n.dir():
		return fuse.ENOTDIR
	case n == r.s.tree.root:
		r.s.lookAgain()
	}
	return fuse.OK
}

// ReadDir implements fuse.RawFileSystem.
func (r *raw) ReadDir(
	_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList,
) (status fuse.Status) {
	defer r.s.rescue("READDIR", &status)
	return r.s.list(in, func(e fuse.DirEntry, _ *node) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus implements fuse.RawFileSystem: every entry but the dots is a lookup as well.
func (r *raw) ReadDirPlus(
	_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList,
) (status fuse.Status) {
	defer r.s.rescue("READDIRPLUS", &status)
	return r.s.list(in, func(e fuse.DirEntry, want *node) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if want != nil {
			r.s.fillEntry(r.s.lookedUp(want), entry)
		}
		return true
	})
}

// A dirItem is an entry of a listing; node is nil for the dots.
type dirItem struct {
	fuse.DirEntry
	node *node
}

// firstCookie is the least offset of an entry that is not a dot.
const firstCookie = 3

// list hands the entries after the offset of a directory to add, until that has no more room.
func (s *Server) list(in *fuse.ReadIn, add func(fuse.DirEntry, *node) bool) fuse.Status {
	dir := s.tree.node(in.NodeId)
	if dir == nil {
		return fuse.Status(syscall.ESTALE)
	}
	items := []dirItem{
		{DirEntry: fuse.DirEntry{Name: ".", Mode: syscall.S_IFDIR, Ino: dir.id, Off: 1}},
		{DirEntry: fuse.DirEntry{Name: "..", Mode: syscall.S_IFDIR, Off: 2}},
	}
	for _, name := range s.names(dir) {
		n, status := s.child(dir, name)
		if !status.Ok() {
			continue
		}
		id := s.tree.peek(n)
		items = append(items, dirItem{
			DirEntry: fuse.DirEntry{Name: name, Mode: s.mode(n), Ino: id, Off: cookie(n, id, name)},
			node:     n,
		})
	}
	sort.Slice(items, func(i, j int) bool { return items[i].Off < items[j].Off })
	for _, it := range items {
		if it.Off > in.Offset && !add(it.DirEntry, it.node) {
			break
		}
	}
	return fuse.OK
}

// cookie is the offset of an entry: that of its node, for other names of memory one of their own.
func cookie(n *node, id uint64, name string) uint64 {
	if (n.kind == kindMemory || n.kind == kindCloneMem) && name != fileMemory {
		id = nodeID(n.kind, n.checkpointID(), n.detail+"/"+name, 0)
	}
	return id>>2 + firstCookie
}

// names are the names in a directory. Any name of a clone exists, but only those in use are listed.
func (s *Server) names(dir *node) []string {
	switch dir.kind {
	case kindRoot:
		names := []string{dirControl}
		for _, e := range s.tree.entries() {
			names = append(names, e.name)
		}
		return names
	case kindControl:
		return []string{"metrics", "socket"}
	case kindCheckpoint:
		return dir.e.childNames()
	case kindClones:
		return dir.e.cloneNames()
	case kindClone:
		names := append([]string{fileMemory, fileInfo, fileStats}, dir.e.fileNames()...)
		return append(names, dir.e.ownNames()...)
	}
	return nil
}

// cloneNames are the IDs of the clones that were opened.
func (e *entry) cloneNames() []string {
	var names []string
	for _, m := range e.memories() {
		if m.clone != "" {
			names = append(names, m.clone)
		}
	}
	slices.SortFunc(names, strings.Compare)
	return names
}
