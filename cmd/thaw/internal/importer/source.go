package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/guestmem"
	"github.com/thawfs/thaw/cmd/thaw/internal/native"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss/pagetable"
)

// Source is a checkpoint to be imported. Its image is open until Close.
type Source struct {
	index.Source
	// Saw says what was recognised, of what another program wrote.
	Saw string
	// Reading says why no VMM can go on from it, Note what else is to be known of it. May be empty.
	Reading, Note string

	saved *guestmem.Saved // nil: thaw's own, or a bare memory file
	added []string        // files that a mount has added
	files []io.Closer
}

// Options say how a path is to be understood.
type Options struct {
	guestmem.Options
	// Raw takes a bare file, or a file "memory", as it is, whatever it looks like.
	Raw bool
}

// Close closes what was only read.
func (src *Source) Close() {
	for _, f := range src.files {
		_ = f.Close()
	}
}

// Owns has a file closed with the source.
func (src *Source) Owns(f io.Closer) { src.files = append(src.files, f) }

// Open finds out what path is: what another program wrote (package guestmem), what index.OpenSource says,
// or a differential checkpoint of our own VMM. Of that the whole image is imported, and a state that does
// without parents. A path that cannot be looked at holds no image, nor does one that is not as large as
// what lies beside it says.
func Open(ctx context.Context, path string, o Options) (*Source, error) {
	if !o.Raw {
		saved, err := guestmem.Open(ctx, path, o.Options)
		if err != nil {
			return nil, foreignError(err)
		}
		if saved != nil {
			s, err := foreign(saved)
			if err == nil {
				s.tellLeftOut(path)
			}
			return s, err
		}
	}
	s, err := open(path)
	if err == nil {
		s.tellLeftOut(path)
	}
	return s, err
}

// open opens what is stored as it is.
func open(path string) (*Source, error) {
	s := &Source{}
	var err error
	if s.Source, err = index.OpenSource(path); err != nil {
		return nil, explain(err)
	}
	if _, ok := s.Files[state.StateFile]; ok {
		err = s.openImage(path)
	}
	if err == nil && s.Image == nil {
		err = s.openFile()
	}
	if err == nil {
		err = s.checkSize(filepath.Dir(s.Memory))
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.leaveOut()
	return s, nil
}

// leaveOut leaves out what a mount adds to a checkpoint of another VMM: the directory may be on a mount,
// or be copied from one. It would be stored as often as it has names.
func (s *Source) leaveOut() {
	sizes := map[string]int64{}
	for name, path := range s.Files {
		if st, err := os.Stat(path); err == nil {
			sizes[name] = st.Size()
		}
	}
	s.added = native.Added(s.Info, s.Image.Size(), sizes)
	for _, name := range s.added {
		delete(s.Files, name)
	}
	if len(s.added) > 0 {
		s.note("left out, since a mount adds it: " + strings.Join(s.added, ", "))
	}
}

// explain says what to do about a path that holds no checkpoint.
func explain(err error) error {
	if _, ok := errors.AsType[*index.NameError](err); ok {
		return exitcode.WithHint(exitcode.BadName, err,
			"give that file another name; one that begins with a dot is left out")
	}
	_, image := errors.AsType[*index.ImageError](err)
	if _, ok := errors.AsType[*os.PathError](err); ok && !image {
		return exitcode.WithHint(exitcode.NotImage, err,
			"give a checkpoint directory, or a file that is the whole memory of a machine")
	}
	return err
}

// openImage opens a checkpoint of our own VMM, whose state says how large its memory is and where
// it lies. Of one that has all of it in its own file no image is needed.
func (s *Source) openImage(path string) error {
	img, err := state.OpenImage(path)
	if err != nil {
		return err
	}
	s.files = append(s.files, img)
	own, err := img.State()
	if err != nil || own == nil { // nil: of another VMM
		return err
	}
	c, err := state.Open(path)
	if err != nil {
		return err
	}
	if want := ram.ImageSize(c.Machine.Facts.Regions); uint64(img.Size()) != want {
		return wrongSize(s.Memory, img.Size(), "its state", int64(want), true)
	}
	if !img.Differential() {
		return nil
	}
	s.Image = image{img}
	return s.flatten(own)
}

// flatten makes the source that of a checkpoint which has all of its memory. Its state is in a file
// without a name, of which nothing stays.
func (s *Source) flatten(own []byte) (err error) {
	if s.Info, err = flatInfo(s.Info); err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("thaw-state", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd))
	s.files = append(s.files, f)
	s.Files[state.StateFile] = f.Name()
	_, err = f.Write(own)
	return err
}

// openFile opens a memory file, which has to stay as it is while it is read.
func (s *Source) openFile() error {
	f, err := index.OpenMemory(s.Memory)
	if err != nil {
		return err
	}
	s.files = append(s.files, f)
	st, err := os.Stat(s.Memory)
	s.Image = steadyFile{f, s.Memory, st}
	return err
}

// checkSize compares the size of the image with what the info.json in its directory tells.
func (s *Source) checkSize(dir string) error {
	path := filepath.Join(dir, "info.json")
	if st, err := os.Stat(path); s.Files == nil || err == nil && !st.Mode().IsRegular() {
		return nil // a bare memory file, or nothing that was stored: a FIFO would be waited for
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // nothing is told
	}
	if err != nil {
		return err
	}
	var info struct {
		MemoryBytes int64 `json:"memory_bytes"`
		Regions     []struct {
			GPA  int64 `json:"gpa"`
			Size int64 `json:"size"`
		} `json:"regions"`
	}
	if json.Unmarshal(text, &info) != nil {
		return nil // another VMM's, which means other things by these names
	}
	if n := info.MemoryBytes; n > 0 && n != s.Image.Size() {
		return wrongSize(s.Memory, s.Image.Size(), "info.json", n, true)
	}
	var end int64
	for _, r := range info.Regions {
		end = max(end, r.GPA+r.Size)
	}
	paging, err := pagetable.ParseInfo(text)
	if err == nil {
		for _, r := range paging.Regions {
			end = max(end, int64(r.Offset+r.Bytes))
		}
	}
	if end > s.Image.Size() {
		return wrongSize(s.Memory, s.Image.Size(), "a region in info.json", end, false)
	}
	return nil
}

// wrongSize is the error for an image that is not as large as it is said to be.
func wrongSize(path string, got int64, who string, want int64, exact bool) error {
	least := ""
	if !exact {
		least = "at least "
	}
	return &index.ImageError{Path: path, Why: fmt.Sprintf(
		"it has %d bytes, and %s says that it has %s%d: it was cut short or belongs to another machine",
		got, who, least, want)}
}

// steadyFile is a memory file that is an error once it has changed.
type steadyFile struct {
	*index.MemoryFile
	path   string
	before os.FileInfo
}

// ReadAt implements index.Memory.
func (f steadyFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.MemoryFile.ReadAt(p, off)
	if changed := f.changed(); changed != nil {
		return 0, changed
	}
	return n, err
}

// Extents implements index.Memory. Holes are never read, so a file that was cut or punched is noticed here.
func (f steadyFile) Extents() ([]index.Run, error) {
	runs, err := f.MemoryFile.Extents()
	if changed := f.changed(); changed != nil {
		return nil, changed
	}
	return runs, err
}

// changed is the error of a file that was written to since it was opened.
func (f steadyFile) changed() error {
	now, err := os.Stat(f.path)
	switch {
	case err != nil || !os.SameFile(f.before, now): // removed or replaced: what is open is as it was
	case now.Size() != f.before.Size():
		return &index.ImageError{Path: f.path, Why: fmt.Sprintf(
			"its size changed while it was read, from %d to %d bytes", f.before.Size(), now.Size())}
	case now.ModTime() != f.before.ModTime():
		return &index.ImageError{Path: f.path, Why: "it was written to while it was read"}
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
