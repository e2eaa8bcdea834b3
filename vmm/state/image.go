package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/thawfs/thaw/vmm/ram"
)

// maxChain is the most directories that the memory of one checkpoint may be spread over.
const maxChain = 64

// Image is the complete memory of a checkpoint: for a differential one, its own pages and those of its
// parents. It stays readable when the directories are removed, but not when their files are changed.
type Image struct {
	ram.Image
	dirs  []string
	id    ID
	state []section // without the section CHANGED; nil: no state file of this VMM
}

// OpenImage opens the memory of a checkpoint directory. If a parent is missing, or its directory has a
// different checkpoint now, the error is a [*ParentError].
func OpenImage(dir string) (*Image, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, StateFile)
	own, err := isState(path)
	if err != nil || !own {
		if errors.Is(err, os.ErrNotExist) || err == nil {
			return openImage(dir, nil) // a checkpoint of another VMM has all of its memory
		}
		return nil, err
	}
	sections, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return openImage(dir, sections)
}

// isState says whether a file is a state file of this VMM, which may be damaged.
func isState(path string) (bool, error) {
	f, err := openFile(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(stateMagic))
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return string(head[:n]) == stateMagic, nil
}

// openImage opens the memory of a directory whose state has been read.
func openImage(dir string, sections []section) (*Image, error) {
	c, state, err := splitChanged(sections)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, StateFile), err)
	}
	img := &Image{dirs: []string{dir}, state: state, id: identify(state)}
	if err := img.openChain(dir, c); err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return img, nil
}

// openChain opens a directory's memory and, where it is differential, those of its parents.
func (img *Image) openChain(dir string, c *Changed) error {
	for c != nil {
		if len(img.dirs) == maxChain {
			return &ParentError{Dir: dir, Parent: c.Parent,
				Why: fmt.Sprintf("it has more than %d parents", maxChain)}
		}
		err := img.AddLayer(filepath.Join(dir, MemoryFile), c.Size, c.Runs)
		if err != nil {
			return err
		}
		if dir, c, err = openParent(dir, c); err != nil {
			return err
		}
		img.dirs = append(img.dirs, dir)
	}
	return img.AddRoot(filepath.Join(dir, MemoryFile))
}

// openParent finds the parent of a differential checkpoint: at its original path, or beside the
// checkpoint if both were moved. The *Changed is that of the parent; nil: the parent has all pages.
func openParent(dir string, c *Changed) (string, *Changed, error) {
	beside := filepath.Join(filepath.Dir(dir), filepath.Base(c.Parent))
	why := "it is not there"
	for _, parent := range []string{c.Parent, beside} {
		sections, err := readFile(filepath.Join(parent, StateFile))
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return "", nil, err
		case identify(sections) != c.ParentID:
			why = "the directory has a different checkpoint now"
			continue
		}
		next, _, err := splitChanged(sections)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", filepath.Join(parent, StateFile), err)
		}
		return parent, next, nil
	}
	return "", nil, &ParentError{Dir: dir, Parent: c.Parent, Why: why}
}

// Map maps the memory. The image's files belong to the result.
func (img *Image) Map() (*ram.Memory, error) {
	return ram.Map(&img.Image, ram.Base{Dir: img.dirs[0], ID: img.id})
}

// Differential says whether the image is spread over several directories.
func (img *Image) Differential() bool { return len(img.dirs) > 1 }

// State returns the state file for a directory with the complete image, that is, without CHANGED. It is
// nil if the checkpoint is from another VMM.
func (img *Image) State() ([]byte, error) {
	if img.state == nil {
		return nil, nil
	}
	return encodeFile(img.state)
}
