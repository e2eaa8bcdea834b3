package state

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/wss"
)

// Checkpoint is a checkpoint directory whose state was read and is valid for this VMM.
type Checkpoint struct {
	Dir      string // absolute
	Machine  Machine
	sections []section
}

// Open reads the state of a checkpoint directory. It does not open its memory.
func Open(dir string) (*Checkpoint, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, StateFile)
	sections, err := readFile(path)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Dir: dir, sections: sections}
	_, own, err := splitChanged(sections)
	if err == nil {
		c.Machine, err = decodeMachine(own)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// OpenImage opens the memory. On a thaw mount this is the request to restore: it returns once the
// working set is in the page cache.
func (c *Checkpoint) OpenImage() (*Image, error) {
	img, err := openImage(c.Dir, c.sections)
	if err != nil {
		return nil, err
	}
	if want := ram.ImageSize(c.Machine.Facts.Regions); uint64(img.Size()) != want {
		return nil, errors.Join(fmt.Errorf("%s has %d bytes, and the state describes %d bytes of memory",
			filepath.Join(c.Dir, MemoryFile), img.Size(), want), img.Close())
	}
	return img, nil
}

// HasConsole says whether the machine in a checkpoint directory runs a kernel, which has a serial
// console. It is false if the state cannot be read; a restore reports the reason.
func HasConsole(dir string) bool {
	list, err := readFile(filepath.Join(dir, StateFile))
	if err != nil {
		return false
	}
	s, err := decodeFacts(list)
	return err == nil && s.Facts.Kernel()
}

// Names of the files of a checkpoint directory.
const (
	MemoryFile = "memory"
	StateFile  = "state"
	InfoFile   = "info.json"
	SetFile    = "working-set" // working sets, in the text of package wss
)

const pageSize = wss.PageSize

// ID identifies a checkpoint. It is a hash of its state, which includes the time stamp counters, so no
// two checkpoints have the same ID. It does not cover section CHANGED (changed.go), so it stays the
// same when a differential checkpoint is merged with its parents.
type ID [sha256.Size]byte

func identify(sections []section) ID {
	h := sha256.New()
	for _, s := range sections {
		if s.tag != tagChanged {
			fmt.Fprintf(h, "%q %d %d\n", s.tag, s.index, len(s.data))
			h.Write(s.data)
		}
	}
	return ID(h.Sum(nil))
}

// ReadID returns the ID of the checkpoint in a directory.
func ReadID(dir string) (ID, error) {
	sections, err := readFile(filepath.Join(dir, StateFile))
	if err != nil {
		return ID{}, err
	}
	return identify(sections), nil
}
