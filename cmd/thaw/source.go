package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm/state"
)

// importSource is what an import reads.
type importSource struct {
	index.Source
	close func()
}

// openSource finds out what path is: what index.OpenSource says, or a differential checkpoint of
// our own VMM. Of that the whole image is imported, and a state that does without parents. A path
// that cannot be looked at holds no image.
func openSource(path string) (*importSource, error) {
	src, err := index.OpenSource(path)
	if as[*os.PathError](err) && !as[*index.ImageError](err) {
		err = exitcode.WithHint(exitcode.NotImage, err,
			"give a checkpoint directory, or a file that is the whole memory of a machine")
	}
	if err != nil {
		return nil, err
	}
	s := &importSource{Source: src, close: func() {}}
	if _, ok := src.Files[stateFile]; !ok {
		return s, nil
	}
	img, err := state.OpenImage(path)
	if err != nil {
		return nil, err
	}
	if !img.Differential() {
		return s, img.Close()
	}
	if err := s.flatten(img); err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return s, nil
}

// stateFile is the name of a VMM's own state in a checkpoint directory.
const stateFile = "state"

// flatten makes the source that of a checkpoint which has all of its memory.
func (s *importSource) flatten(img *state.Image) error {
	state, err := img.State()
	if err != nil {
		return err
	}
	if s.Info, err = flatInfo(s.Info); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "thaw-import-")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, stateFile)
	if err := os.WriteFile(file, state, 0o600); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	s.Files[stateFile] = file
	s.Image = image{img}
	s.close = func() {
		_ = img.Close() // it was only read
		_ = os.RemoveAll(dir)
	}
	return nil
}

// flatInfo is an info.json without what says that it is of a differential checkpoint.
func flatInfo(info json.RawMessage) (json.RawMessage, error) {
	if info == nil {
		return nil, nil
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(info, &m); err != nil {
		return nil, fmt.Errorf("info.json: %w", err)
	}
	delete(m, "differential")
	delete(m, "changed_pages")
	return json.MarshalIndent(m, "", "  ")
}

// image is a VMM's image as the store reads it.
type image struct{ *state.Image }

// Extents implements index.Memory.
func (i image) Extents() ([]index.Run, error) {
	runs, err := i.Image.Extents()
	if err != nil {
		return nil, err
	}
	out := make([]index.Run, len(runs))
	for k, r := range runs {
		out[k] = index.Run{GFN: r.First, Count: r.Count}
	}
	return out, nil
}
