package fs

import (
	"context"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/index"
)

// Names are what a checkpoint is called by the program that saved it: further names in its directory,
// beside those that every checkpoint has. A name that the directory has already keeps what it means.
type Names struct {
	// Memory are other names of memory: the same inode, and so the same page cache.
	Memory []string
	// Composed are files that are made of the memory and of stored files when they are read.
	Composed []Composed
}

// A Composed is a file that is stored nowhere. Its content depends on nothing but the checkpoint's ID and
// the name.
type Composed struct {
	Name string
	Size int64
	// Open makes the file. It is called when the file is first opened, and may read; the image stays open
	// until the file is closed. Whatever is not as it has to be is an error, and that of the reader.
	Open func(ctx context.Context, m Image, file func(name string) (File, error)) (File, error)
}

// NewNamedStore is NewStore with the names that programs know their checkpoints by. names is called for
// each checkpoint whenever the store is listed, and so must read nothing.
func NewNamedStore(s *index.Store, names func(index.Checkpoint) Names) Store {
	return indexStore{s, names}
}

// taken says whether every checkpoint has a name, or this one a file of it.
func (c *Checkpoint) taken(name string) bool {
	switch name {
	case fileMemory, fileInfo, fileStats, dirClones:
		return true
	}
	_, file := c.Files[name]
	return file
}

// alias says whether a name is another one of memory.
func (c *Checkpoint) alias(name string) bool {
	return slices.Contains(c.Names.Memory, name) && !c.taken(name)
}

// aliases are the other names of memory.
func (c *Checkpoint) aliases() (names []string) {
	for _, name := range c.Names.Memory {
		if !c.taken(name) {
			names = append(names, name)
		}
	}
	return names
}

// composed finds a composed file by its name; nil if there is none.
func (c *Checkpoint) composed(name string) *Composed {
	for i := range c.Names.Composed {
		if f := &c.Names.Composed[i]; f.Name == name && !c.taken(name) && !c.alias(name) {
			return f
		}
	}
	return nil
}

// ownNames are all names that only this checkpoint has beside its stored files.
func (e *entry) ownNames() []string {
	c := e.info.Load()
	names := c.aliases()
	for _, f := range c.Names.Composed {
		if c.composed(f.Name) != nil {
			names = append(names, f.Name)
		}
	}
	return names
}

// check says what is wrong with the names that a store gives.
func (n *Names) check() error {
	seen := map[string]bool{}
	names := slices.Clone(n.Memory)
	for _, f := range n.Composed {
		names = append(names, f.Name)
		if f.Size < 0 || f.Open == nil {
			return fmt.Errorf("file %s of %d bytes cannot be composed", f.Name, f.Size)
		}
	}
	for _, name := range names {
		if err := index.CheckName(name); err != nil {
			return fmt.Errorf("a file of a checkpoint: %w", err)
		}
		if seen[name] {
			return fmt.Errorf("a file of a checkpoint has the name %q twice", name)
		}
		seen[name] = true
	}
	return nil
}
