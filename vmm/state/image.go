package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/thawfs/thaw/vmm/ram"
)

// maxChain is how many directories an image may be spread over.
const maxChain = 64

// Image is the memory of a checkpoint as a whole: of a differential one, what its own directory has
// and what it has from its parents. It stays readable while the directories are removed, but not
// while their files are written to.
type Image struct {
	ram.Image
	dirs  []string
	id    ID
	state []section // without what makes it differential; nil: there is no state of this VMM
}

// OpenImage opens the memory of a checkpoint directory. A parent that is not there, or is another
// checkpoint than the one that the directory was made from, is a [*ParentError].
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

// isState says whether a file is a state file of this VMM, if perhaps a damaged one.
func isState(path string) (bool, error) {
	f, err := os.Open(path)
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

// openParent finds the directory that a differential checkpoint was made from: where it was then,
// or beside the checkpoint, as when both were moved. It gives its part of the chain; nil: it has
// all pages.
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
			why = "it is another checkpoint now"
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

// Map maps the memory and takes the image's files over.
func (img *Image) Map() (*ram.Memory, error) {
	return ram.Map(&img.Image, ram.Base{Dir: img.dirs[0], ID: img.id})
}

// Differential says whether the image is spread over several directories.
func (img *Image) Differential() bool { return len(img.dirs) > 1 }

// State is a state file for a directory that has the whole image. Nil if the checkpoint is of
// another VMM.
func (img *Image) State() ([]byte, error) {
	if img.state == nil {
		return nil, nil
	}
	return encodeFile(img.state)
}
