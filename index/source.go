package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Source is a checkpoint to import: where its files are.
type Source struct {
	// Memory is the path of the image: a regular file, its size a multiple of 4096.
	Memory string
	// Image, if not nil, is read instead of the file Memory, which is then only a name for messages.
	// A checkpoint whose pages lie in several files needs it. The caller closes it.
	Image Memory
	// Stream, if not nil, is the memory instead: it is read once. Memory is only a name for messages, and
	// Image and Info are nil. Files are read after it.
	Stream Stream
	// Files are the other files, stored as they are: name in the checkpoint -> path.
	Files map[string]string
	// Info is the VMM's info.json; nil if there is none.
	Info json.RawMessage
}

// maxInfo bounds an info.json, in bytes.
const maxInfo = 16 << 20

// OpenSource finds out what path is: a checkpoint directory, or a bare memory file. Of a directory
// it takes the regular files; it ignores hidden files, directories and what a mount adds
// (stats.json).
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
		return nil, fmt.Errorf("%s is not JSON", path)
	}
	var own Checkpoint
	if json.Unmarshal(b, &own) == nil && own.Format == Format && own.ID != "" {
		return own.Guest, nil
	}
	return b, nil
}

// checkMemory says whether path can be a memory image. The error is an *ImageError.
func checkMemory(path string) error {
	m, err := OpenMemory(path)
	if err != nil {
		return err
	}
	return m.Close()
}
