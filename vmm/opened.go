package vmm

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Checkpoint is a checkpoint directory whose state has been read, and can be restored by this VMM.
type Checkpoint struct {
	Dir      string // absolute
	Machine  saved
	sections []section
}

// openCheckpoint reads the state of a checkpoint directory. It does not look at its memory.
func openCheckpoint(dir string) (*Checkpoint, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, stateFile)
	sections, err := readStateFile(path)
	if err != nil {
		return nil, err
	}
	_, own, err := splitChanged(sections)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s, err := decodeSaved(own)
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
	if want := imageSize(c.Machine.facts.Regions); uint64(img.Size()) != want {
		return nil, errors.Join(fmt.Errorf("%s: %d bytes, the state describes %d bytes of memory",
			filepath.Join(c.Dir, memoryFile), img.Size(), want), img.Close())
	}
	return img, nil
}
