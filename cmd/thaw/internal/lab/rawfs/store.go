package rawfs

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"os"
	"time"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob/disk"
)

// ReadAhead is fs.Options.ReadAhead for a mount of a Store: that of the kernel for local files.
const ReadAhead = 128 << 10

// Store is one checkpoint directory.
type Store struct {
	name string
	src  index.Source
	disk *disk.Disk // nil: the host's own
	c    fs.Checkpoint
}

var _ fs.Store = (*Store)(nil)

// Open looks at a checkpoint directory or a bare memory file, to be shown under a name. d may be
// nil.
func Open(path, name string, d *disk.Disk) (*Store, error) {
	if err := index.CheckName(name); err != nil {
		return nil, err
	}
	src, err := index.OpenSource(path)
	if err != nil {
		return nil, err
	}
	s := &Store{name: name, src: src, disk: d}
	st, err := os.Stat(src.Memory)
	if err != nil {
		return nil, err
	}
	h := fnv.New128a()
	fmt.Fprintf(h, "%s %d %d", src.Memory, st.Size(), st.ModTime().UnixNano())
	s.c = fs.Checkpoint{
		Name: name, ID: hex.EncodeToString(h.Sum(nil)), MemoryBytes: st.Size(), Created: time.Now(),
		Files: map[string]int64{}, Info: src.Info,
	}
	if s.c.DataPages, err = dataPages(src.Memory); err != nil {
		return nil, err
	}
	for file, path := range src.Files {
		st, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		s.c.Files[file] = st.Size()
	}
	return s, nil
}

// dataPages is how many pages of a memory file are in no hole.
func dataPages(path string) (n uint64, err error) {
	f, err := index.OpenMemory(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	extents, err := f.Extents()
	for _, r := range extents {
		n += r.Count
	}
	return n, err
}

// List implements fs.Store.
func (s *Store) List(context.Context) ([]fs.Checkpoint, error) { return []fs.Checkpoint{s.c}, nil }

// OpenFile implements fs.Store. Only the memory is charged.
func (s *Store) OpenFile(_ context.Context, _ fs.Checkpoint, file string) (fs.File, error) {
	path, ok := s.src.Files[file]
	if !ok {
		return nil, fmt.Errorf("file %s of %s: %w", file, s.name, fs.ErrNotFound)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return content{bytes.NewReader(b)}, nil
}

type content struct{ *bytes.Reader }

func (content) Close() error { return nil }

// OpenImage implements fs.Store.
func (s *Store) OpenImage(context.Context, fs.Checkpoint) (fs.Image, error) {
	f, err := index.OpenMemory(s.src.Memory)
	if err != nil {
		return nil, err
	}
	extents, err := f.Extents()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &image{f: f, disk: s.disk, places: placesOf(extents)}, nil
}
