package fs

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A node is what the kernel knows by a number. Everything but lookups, static and mem is fixed.
type node struct {
	id   uint64
	kind nodeKind
	// e is the checkpoint that the node belongs to; nil for the root and .thaw.
	e *entry
	// detail tells nodes of one kind and checkpoint apart: a file name, a clone's ID, a revision.
	detail string
	// name is the file of kindFile.
	name string
	// of is the revision of the checkpoint that a stored file or info.json belongs to.
	of *Checkpoint
	// size and content are those of the stored small files.
	size    int64
	content []byte

	// mem is the memoryFile of memory and of clones' memory, made at the first open.
	mem atomic.Pointer[memoryFile]

	// lookups is how often the kernel looked the node up and has not forgotten it. Guarded by tree.mu,
	// like static: the node stays without lookups, because a listed checkpoint has it. A server that
	// takes over a connection is asked for such nodes at once.
	lookups uint64
	static  bool
	// inherited: the kernel may know the node from the server before, too, and how often is not known.
	// Guarded by tree.mu.
	inherited bool
}

// Names that every checkpoint directory has.
const (
	fileMemory = "memory"
	fileInfo   = "info.json"
	fileStats  = "stats.json"
	dirClones  = "clones"
	dirControl = ".thaw"
)

// A tree is the table of nodes and the names of the root directory. Its lock is held for a map
// access, never over I/O and never over a notification: the kernel answers those under the lock of
// a directory in which a LOOKUP may be waiting for us. It may be taken with an entry's lock held.
type tree struct {
	mu    sync.RWMutex
	nodes map[uint64]*node
	names map[string]*entry
	root  *node
	ctl   *node
}

func newTree() *tree {
	t := &tree{nodes: make(map[uint64]*node), names: make(map[string]*entry)}
	t.root = &node{id: fuse.FUSE_ROOT_ID, kind: kindRoot, static: true}
	t.nodes[t.root.id] = t.root
	t.ctl = t.internLocked(&node{kind: kindControl, static: true})
	t.internLocked(&node{kind: kindMetrics, static: true})
	t.internLocked(&node{kind: kindSocket, static: true})
	return t
}

// node finds a node by its number; nil if there is none.
func (t *tree) node(id uint64) *node {
	t.mu.RLock()
	n := t.nodes[id]
	t.mu.RUnlock()
	return n
}

// checkpointID is what the numbers of the nodes of a checkpoint are computed from. A checkpoint that gets
// another name keeps its ID, and its entry does not: nodes that the kernel still knows by the old name are
// those of the entry that is gone.
func (n *node) checkpointID() string {
	if n.e == nil {
		return ""
	}
	return n.e.name + "/" + n.e.id
}

// same says whether two nodes are the same thing.
func (n *node) same(o *node) bool {
	return n.kind == o.kind && n.detail == o.detail && n.checkpointID() == o.checkpointID()
}

// internLocked returns the table's node for what want describes, and adds want if there is none.
// A number that is taken by something else (a collision of 64-bit hashes) leads to the next one.
func (t *tree) internLocked(want *node) *node {
	for try := 0; ; try++ {
		id := nodeID(want.kind, want.checkpointID(), want.detail, try)
		n, taken := t.nodes[id]
		if !taken {
			want.id = id
			t.nodes[id] = want
			return want
		}
		if n.same(want) {
			n.static = n.static || want.static
			return n
		}
	}
}

// lookup interns a node and counts that the kernel knows of it.
func (t *tree) lookup(want *node) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.internLocked(want)
	n.lookups++
	return n
}

// peek returns the number that a node has or would have, without adding the node.
func (t *tree) peek(want *node) uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for try := 0; ; try++ {
		id := nodeID(want.kind, want.checkpointID(), want.detail, try)
		if n, taken := t.nodes[id]; !taken || n.same(want) {
			return id
		}
	}
}

// forget takes back count lookups. It returns the node when the kernel does not know it any more,
// which means that its page cache is gone too.
func (t *tree) forget(id, count uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[id]
	if n == nil || n == t.root {
		return nil
	}
	if n.inherited && count <= n.lookups {
		n.lookups -= count
		return nil // the kernel takes back single lookups, and all that it has when it evicts the inode
	}
	n.inherited = false
	return t.forgetLocked(n, count)
}

// forgetLocked is forget for a node of whose lookups all are known.
func (t *tree) forgetLocked(n *node, count uint64) *node {
	n.lookups -= min(count, n.lookups)
	if n.lookups > 0 {
		return nil
	}
	if !n.static {
		delete(t.nodes, n.id)
	}
	return n
}

// pin makes a node stay when the kernel has forgotten it.
func (t *tree) pin(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.nodes[id]; n != nil {
		n.static = true
	}
}

// looked says whether the kernel knows a number.
func (t *tree) looked(id uint64) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.nodes[id]
	return n != nil && (n.lookups > 0 || n.inherited)
}

// entry finds a checkpoint by name; nil if there is none.
func (t *tree) entry(name string) *entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.names[name]
}

// entries are all checkpoints, by name.
func (t *tree) entries() []*entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]*entry, 0, len(t.names))
	for _, e := range t.names {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	return all
}

// A dentry is a name in a directory that the kernel may have cached.
type dentry struct {
	parent uint64
	name   string
}

// publish replaces the root directory by list; make makes the entry of a checkpoint that is new.
// It returns what the kernel must drop from its cache of names, the checkpoints that are gone, and
// those that are there again.
func (t *tree) publish(
	list []Checkpoint, make func(Checkpoint) *entry,
) (stale []dentry, gone, again []*entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[string]*entry{}
	for _, c := range list {
		e := t.names[c.Name]
		if e == nil || e.id != c.ID {
			if e = t.formerLocked(c); e != nil {
				t.unpinLocked(e)
				again = append(again, e)
			} else {
				e = make(c)
			}
		}
		if old := e.info.Load(); old.Revision != c.Revision {
			stale = append(stale, t.filesLocked(e, old, &c)...)
			t.unpinLocked(e)
			e.info.Store(&c)
		}
		next[c.Name] = e
	}
	for name, e := range t.names {
		if next[name] != e {
			stale = append(stale, dentry{t.root.id, name})
			gone = append(gone, e)
		}
	}
	for _, e := range next {
		t.pinLocked(e)
	}
	t.names = next
	return stale, gone, again
}

// formerLocked is the entry that a checkpoint had before it was removed, if it still has nodes; nil if
// not. They have the same numbers, and one page cache.
func (t *tree) formerLocked(c Checkpoint) *entry {
	for _, n := range t.nodes {
		if n.e != nil && n.e.id == c.ID && n.e.name == c.Name {
			return n.e
		}
	}
	return nil
}

// filesLocked names the small files of a checkpoint and its clones, before and after a change: not
// the directories, because dropping those would drop memory and its page cache with them.
func (t *tree) filesLocked(e *entry, before, after *Checkpoint) []dentry {
	names := map[string]bool{fileInfo: true}
	for name := range before.Files {
		names[name] = true
	}
	for name := range after.Files {
		names[name] = true
	}
	var stale []dentry
	for id, n := range t.nodes {
		if n.e != e || n.kind != kindCheckpoint && n.kind != kindClone {
			continue
		}
		for name := range names {
			stale = append(stale, dentry{id, name})
		}
	}
	return stale
}

// pinLocked adds the nodes that a listed checkpoint has even if nobody looks them up.
func (t *tree) pinLocked(e *entry) {
	for _, n := range e.children() {
		n.static = true
		t.internLocked(n)
	}
}

// unpin removes the nodes of a checkpoint that is not listed any more, those that the kernel knows when it
// has forgotten them. It is called when nobody is at work on its files: if the checkpoint comes back before
// that, with the same numbers, it must be the same entry.
func (t *tree) unpin(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names[e.name] != e {
		t.unpinLocked(e)
	}
}

// unpinLocked removes the nodes of a checkpoint as soon as the kernel forgets them.
func (t *tree) unpinLocked(e *entry) {
	for id, n := range t.nodes {
		if n.e == e && n.static {
			n.static = false
			if n.lookups == 0 && !n.inherited {
				delete(t.nodes, id)
			}
		}
	}
}

// known are the checkpoints of all nodes, those among them that are not listed any more.
func (t *tree) known() []*entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	seen := map[*entry]bool{}
	for _, n := range t.nodes {
		if n.e != nil {
			seen[n.e] = true
		}
	}
	for _, e := range t.names {
		seen[e] = true
	}
	return slices.Collect(maps.Keys(seen))
}
