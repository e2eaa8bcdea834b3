package state

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/thawfs/thaw/vmm/ram"
)

// Checkpoint is a checkpoint directory whose state has been read, and can be restored by this VMM.
type Checkpoint struct {
	Dir      string // absolute
	Machine  Machine
	sections []section
}

// Open reads the state of a checkpoint directory. It does not look at its memory.
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
	_, own, err := splitChanged(sections)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s, err := decodeMachine(own)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Checkpoint{Dir: dir, Machine: s, sections: sections}, nil
}

// OpenImage opens the memory. On a mount of thaw this is the request to restore: it returns once the
// working set is in the page cache.
func (c *Checkpoint) OpenImage() (*Image, error) {
	img, err := openImage(c.Dir, c.sections)
	if err != nil {
		return nil, err
	}
	if want := ram.ImageSize(c.Machine.Facts.Regions); uint64(img.Size()) != want {
		return nil, errors.Join(fmt.Errorf("%s: %d bytes, the state describes %d bytes of memory",
			filepath.Join(c.Dir, MemoryFile), img.Size(), want), img.Close())
	}
	return img, nil
}

// HasConsole says whether the machine in a checkpoint directory runs a kernel, which has a serial
// console. It is false for what cannot be read: a restore tells why.
func HasConsole(dir string) bool {
	list, err := readFile(filepath.Join(dir, StateFile))
	if err != nil {
		return false
	}
	s, err := decodeFacts(list)
	return err == nil && s.Facts.Kernel()
}
