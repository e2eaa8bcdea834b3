package crashfs

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// node is a file or a directory. The file system's lock guards it.
type node struct {
	// Of a file: what a reader sees, and how much of it is durable.
	data   []byte
	synced int

	// Of a directory: what a reader sees, what is durable, and what led from there to here.
	names, kept map[string]*node
	changes     []change
}

// change is one step on the names of a directory: node is no longer under out, and is under in.
type change struct {
	out, in string // "": nothing
	node    *node
}

func newDirectory() *node {
	return &node{names: map[string]*node{}, kept: map[string]*node{}}
}

func (n *node) isDir() bool { return n.names != nil }

func (n *node) list() []string { return slices.Sorted(maps.Keys(n.names)) }

func (c change) apply(names map[string]*node) {
	if c.out != "" && names[c.out] == c.node {
		delete(names, c.out)
	}
	if c.in != "" {
		names[c.in] = c.node
	}
}

// do changes a directory, for the time being.
func (n *node) do(c change) {
	c.apply(n.names)
	n.changes = append(n.changes, c)
}

// sync makes durable what there is.
func (n *node) sync() {
	n.kept = maps.Clone(n.names)
	n.changes = nil
}

// cut is what a power cut does to a node and all in it: of what is not durable each piece stays
// with probability keep.
func (n *node) cut(r *rand.Rand, keep float64) {
	if !n.isDir() {
		n.tear(r, keep)
		return
	}
	for _, c := range n.changes {
		if r.Float64() < keep {
			c.apply(n.kept)
		}
	}
	n.names = maps.Clone(n.kept)
	n.changes = nil
	for _, name := range n.list() {
		n.names[name].cut(r, keep)
	}
}

const sector = 512

// tear leaves of a file what was synced, and of the rest some length with holes and rubbish in it.
func (n *node) tear(r *rand.Rand, keep float64) {
	rest := len(n.data) - n.synced
	if rest > 0 && r.Float64() >= keep {
		rest = r.IntN(rest + 1)
	}
	data := slices.Clone(n.data[:n.synced+rest])
	for at := n.synced; at < len(data); {
		end := min(at-at%sector+sector, len(data))
		if r.Float64() >= keep {
			clear(data[at:end])
			for i := at; i < end && r.IntN(2) == 0; i++ {
				data[i] = byte(r.Uint32())
			}
		}
		at = end
	}
	n.data, n.synced = data, len(data)
}

// info describes a node.
func (n *node) info(name string) fs.FileInfo {
	return info{name: name, size: int64(len(n.data)), dir: n.isDir()}
}

type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
