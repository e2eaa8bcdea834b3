package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// PageSize of guest memory in bytes.
const PageSize = 4096

// Spec describes a fleet.
type Spec struct {
	Bytes int64 // of the memory of each machine
	Seed  uint64
	Root  string // the directory whose files are in the page caches
}

// Fleet is the machines.
type Fleet struct {
	spec   Spec
	files  []file // the most popular first
	kernel file
}

// file is one of the host, or the part of it that is in page caches.
type file struct {
	path        string
	first, size int64
}

func (f file) pages() uint32 { return uint32((f.size + PageSize - 1) / PageSize) }

const (
	minFile = 2048
	maxFile = 16 << 20 // a page cache has the rest of larger files rarely
)

// New finds the files.
func New(s Spec) (*Fleet, error) {
	f := &Fleet{spec: s}
	var all int64
	err := filepath.WalkDir(s.Root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Size() < minFile {
			return ignoreGone(err)
		}
		if info.Size() > f.kernel.size {
			f.kernel = file{path: path, size: info.Size()}
		}
		f.files = append(f.files, f.part(path, info.Size()))
		all += info.Size()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find files for a fleet: %w", err)
	}
	if all < 2*s.Bytes || f.kernel.size < PageSize {
		return nil, fmt.Errorf("%s has %d bytes of files, which is too few for machines of %d bytes",
			s.Root, all, s.Bytes)
	}
	f.kernel.size = min(f.kernel.size, kernelPages*PageSize) &^ (PageSize - 1)
	slices.SortFunc(f.files, func(a, b file) int {
		return cmp.Or(cmp.Compare(f.rank(a), f.rank(b)), cmp.Compare(a.path, b.path))
	})
	return f, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// part is what page caches have of a file.
func (f *Fleet) part(path string, size int64) file {
	if size <= maxFile {
		return file{path: path, size: size}
	}
	n := newNumbers(f.spec.Seed, hashOf(path))
	first := int64(n.below(uint64(size-maxFile)/PageSize)) * PageSize
	return file{path: path, first: first, size: maxFile}
}

// rank is the order of popularity.
func (f *Fleet) rank(a file) uint64 { return mix(f.spec.Seed ^ hashOf(a.path)) }

// read fills dst with a page of a file; what is behind its end is zero.
func (a file) read(open map[string]*os.File, page uint32, dst []byte) error {
	in := open[a.path]
	if in == nil {
		var err error
		if in, err = os.Open(a.path); err != nil {
			return err
		}
		if len(open) > maxOpen {
			closeAll(open)
		}
		open[a.path] = in
	}
	off := int64(page) * PageSize
	n := min(a.size-off, PageSize)
	clear(dst[n:])
	if _, err := in.ReadAt(dst[:n], a.first+off); err != nil {
		return fmt.Errorf("read %s: %w", a.path, err)
	}
	return nil
}

const maxOpen = 64

func closeAll(open map[string]*os.File) {
	for path, f := range open {
		f.Close()
		delete(open, path)
	}
}
