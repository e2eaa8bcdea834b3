package index

import (
	"encoding/json"
	"errors"
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

// OpenSource finds out what path is: a checkpoint directory, or a bare memory file.
func OpenSource(path string) (Source, error) {
	return Source{}, errors.ErrUnsupported
}
