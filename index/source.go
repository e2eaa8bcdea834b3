package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Source is a checkpoint to import: where its files are.
type Source struct {
	// Memory is the path of the image: a regular file, its size a multiple of 4096.
	Memory string
	// Files are the other files, stored as they are: name in the checkpoint -> path.
	Files map[string]string
	// Info is the VMM's info.json; nil if there is none.
	Info json.RawMessage
}

// maxInfo bounds an info.json, in bytes.
const maxInfo = 16 << 20

// OpenSource finds out what path is: a checkpoint directory, or a bare memory file. Of a directory
// it takes the regular files; hidden ones, directories and what a mount adds (stats.json) are no
// part of a checkpoint.
func OpenSource(path string) (Source, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Source{}, err
	}
	if !st.IsDir() {
		src := Source{Memory: path}
		return src, checkMemory(path)
	}
	src := Source{Memory: filepath.Join(path, fileMemory), Files: map[string]string{}}
	if _, err := os.Stat(src.Memory); errors.Is(err, fs.ErrNotExist) {
		return Source{}, &ImageError{Path: path, Why: "the directory has no file \"memory\"", Err: err}
	}
	if err := checkMemory(src.Memory); err != nil {
		return Source{}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return Source{}, err
	}
	for _, e := range entries {
		name := e.Name()
		file := filepath.Join(path, name)
		st, err := os.Stat(file)
		if err != nil {
			return Source{}, err
		}
		if !st.Mode().IsRegular() || name[0] == '.' || name == fileMemory || name == fileStats {
			continue
		}
		if name == fileInfo {
			if src.Info, err = readInfo(file, st.Size()); err != nil {
				return Source{}, err
			}
			continue
		}
		if err := CheckFileName(name); err != nil {
			return Source{}, err
		}
		src.Files[name] = file
	}
	return src, nil
}

// readInfo reads an info.json. That of a mount is the store's own manifest: what the VMM had
// written is inside of it.
func readInfo(path string, size int64) (json.RawMessage, error) {
	if size > maxInfo {
		return nil, fmt.Errorf("%s: %d bytes are too many", path, size)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !json.Valid(b) {
		return nil, fmt.Errorf("%s is no JSON", path)
	}
	var own Checkpoint
	if json.Unmarshal(b, &own) == nil && own.Format == Format && own.ID != "" {
		return own.Guest, nil
	}
	return b, nil
}

// checkMemory says whether path can be a memory image. The error is an *ImageError.
func checkMemory(path string) error {
	m, err := openMemory(path)
	if err != nil {
		return err
	}
	return m.f.Close()
}

// memory is an open memory file.
type memory struct {
	f     *os.File
	pages uint64
}

// openMemory opens a memory image for reading.
func openMemory(path string) (*memory, error) {
	// Without O_NONBLOCK the open of a FIFO would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &ImageError{Path: path, Why: "it cannot be opened", Err: err}
	}
	st, err := f.Stat()
	why := ""
	switch {
	case err != nil:
		why = "its size is not known"
	case st.IsDir():
		why = "it is a directory"
	case !st.Mode().IsRegular():
		why = "it is no regular file"
	case st.Size() == 0:
		why = "it is empty"
	case st.Size()%PageSize != 0:
		why = fmt.Sprintf("its size, %d bytes, is no multiple of %d", st.Size(), PageSize)
	case st.Size()/PageSize > maxPages:
		why = fmt.Sprintf("its size, %d bytes, is more than 16 TiB", st.Size())
	}
	if why != "" {
		f.Close()
		return nil, &ImageError{Path: path, Why: why, Err: err}
	}
	return &memory{f: f, pages: uint64(st.Size()) / PageSize}, nil
}

// extents gives the pages that may hold data, as runs; the others are holes of the file and zero.
func (m *memory) extents() ([]Run, error) {
	var out []Run
	size := int64(m.pages) * PageSize
	for off := int64(0); off < size; {
		start, err := unix.Seek(int(m.f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		if errors.Is(err, unix.EINVAL) {
			return []Run{{0, m.pages}}, nil // a file system without holes
		}
		if err != nil {
			return nil, fmt.Errorf("find holes of %s: %w", m.f.Name(), err)
		}
		end, err := unix.Seek(int(m.f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("find holes of %s: %w", m.f.Name(), err)
		}
		end = min(end, size)
		first, last := uint64(start)/PageSize, (uint64(end)+PageSize-1)/PageSize
		if n := len(out); n > 0 && out[n-1].GFN+out[n-1].Count >= first {
			out[n-1].Count = last - out[n-1].GFN
		} else if last > first {
			out = append(out, Run{first, last - first})
		}
		off = max(end, off+1)
	}
	return out, nil
}

// read reads the pages gfns into buf; neighbours are read together.
func (m *memory) read(gfns []uint64, buf []byte) error {
	for i := 0; i < len(gfns); {
		j := i + 1
		for j < len(gfns) && gfns[j] == gfns[j-1]+1 {
			j++
		}
		if _, err := m.f.ReadAt(buf[i*PageSize:j*PageSize], int64(gfns[i])*PageSize); err != nil {
			return fmt.Errorf("read %s at page %d: %w", m.f.Name(), gfns[i], err)
		}
		i = j
	}
	return nil
}
