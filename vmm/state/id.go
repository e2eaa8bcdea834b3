package state

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
)

// ID names a checkpoint: a hash of its state. The machine's time stamp counter is in it, so
// no two are the same; what a differential checkpoint adds to it is not (changed.go), so it stays
// when such a one is put together with its parents.
type ID [sha256.Size]byte

func identify(sections []section) ID {
	h := sha256.New()
	for _, s := range sections {
		if s.tag != tagChanged {
			fmt.Fprintf(h, "%q %d %d\n", s.tag, s.index, len(s.data))
			h.Write(s.data)
		}
	}
	return ID(h.Sum(nil))
}

// ReadID reads the identity of the checkpoint in a directory.
func ReadID(dir string) (ID, error) {
	sections, err := readFile(filepath.Join(dir, StateFile))
	if err != nil {
		return ID{}, err
	}
	return identify(sections), nil
}
