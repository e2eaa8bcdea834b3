package fs

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// An entry is one checkpoint of the tree: as long as the store lists it, and after that for as long
// as the kernel knows one of its nodes.
type entry struct {
	name string
	id   string
	info atomic.Pointer[Checkpoint]

	// epoch is what happened since the image was last cold, clones included.
	epoch atomic.Pointer[epoch]
	// img is the open image; READs use it without a lock, see openImage.
	img atomic.Pointer[openImage]

	// asked is what machines have asked for.
	asked *asked
	// learned is what restores have taught about the working set.
	learned learned

	// dropping has an element while the image is dropped.
	dropping chan struct{}

	mu sync.Mutex
	// gone is set when the store does not list it any more. Guarded by mu, as all below.
	gone bool
	// opens counts open memory files, those of clones included.
	opens int
	// busy counts the goroutines that push pages into any of its files, or drop them.
	busy int
	// quiet is closed when a pusher releases an image; nil: nobody waits for that.
	quiet chan struct{}
	// replaced are the images that wait to be closed, the current one not among them.
	replaced []*openImage
	// main and clones are the memory files that were opened; clones by ID.
	main   *memoryFile
	clones map[string]*memoryFile
	// lesson is what restores have taught; its zero value: not known yet.
	lesson Lesson
	// retired sums the counters of clones that were forgotten.
	retired Counters
}

func newEntry(c Checkpoint) *entry {
	e := &entry{
		name: c.Name, id: c.ID,
		dropping: make(chan struct{}, 1),
		clones:   make(map[string]*memoryFile),
	}
	e.info.Store(&c)
	e.asked = newAsked(e.pages())
	return e
}

// pages is the number of guest pages of the image.
func (e *entry) pages() uint64 {
	return uint64(e.info.Load().MemoryBytes) / PageSize
}

// copied is how many pages a copy of the image reads at least: those that are not holes.
func (e *entry) copied() uint64 {
	if n := e.info.Load().DataPages; n > 0 {
		return n
	}
	return e.pages()
}

// child describes the node of a name in the checkpoint's directory, or of one that a clone shares
// with it; nil if there is no such name.
func (e *entry) child(name string) *node {
	c := e.info.Load()
	switch name {
	case fileMemory:
		return &node{kind: kindMemory, e: e, name: name, size: c.MemoryBytes}
	case fileStats:
		return &node{kind: kindStats, e: e, name: name}
	case dirClones:
		return &node{kind: kindClones, e: e, name: name}
	case fileInfo:
		return &node{
			kind: kindInfo, e: e, name: name, detail: fmt.Sprint(c.Revision), of: c,
			size: int64(len(c.Info)), content: c.Info,
		}
	}
	if c.alias(name) {
		return e.child(fileMemory)
	}
	if f := c.composed(name); f != nil {
		return &node{
			kind: kindComposed, e: e, name: name, detail: composedName(name), of: c, size: f.Size,
		}
	}
	if size, ok := c.Files[name]; ok {
		return &node{
			kind: kindFile, e: e, name: name, detail: fmt.Sprintf("%d/%s", c.Revision, name),
			of: c, size: size,
		}
	}
	return nil
}

// childNames are the names in the checkpoint's directory.
func (e *entry) childNames() []string {
	names := []string{fileMemory, fileInfo, fileStats, dirClones}
	return append(append(names, e.fileNames()...), e.ownNames()...)
}

// fileNames are the names of the stored files.
func (e *entry) fileNames() []string {
	return slices.Sorted(maps.Keys(e.info.Load().Files))
}

// dir describes the checkpoint's directory.
func (e *entry) dir() *node {
	return &node{kind: kindCheckpoint, e: e, name: e.name}
}

// children describes the directory and all in it.
func (e *entry) children() []*node {
	all := []*node{e.dir()}
	for _, name := range e.childNames() {
		all = append(all, e.child(name))
	}
	return all
}

// cloneChild describes the node of a name in the directory of clone id.
func (e *entry) cloneChild(id, name string) *node {
	switch name {
	case fileMemory:
		size := e.info.Load().MemoryBytes
		return &node{kind: kindCloneMem, e: e, name: name, detail: id, size: size}
	case fileStats:
		return &node{kind: kindCloneStats, e: e, name: name, detail: id}
	case dirClones:
		return nil
	}
	if e.info.Load().alias(name) {
		return e.cloneChild(id, fileMemory)
	}
	return e.child(name)
}
