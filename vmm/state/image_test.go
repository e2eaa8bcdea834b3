package state

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory that names itself as its parent, and a chain that is too long.
func TestChainIsBounded(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, MemoryFile), make([]byte, pageSize), 0o644); err != nil {
		t.Fatal(err)
	}
	own := []section{{tag: "TEST", data: []byte("x")}}
	c := Changed{Size: pageSize, Parent: dir, ParentID: identify(own)}
	b, err := encodeFile(append(own, changedSection(t, &c)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, StateFile), b, 0o644); err != nil {
		t.Fatal(err)
	}
	var parent *ParentError
	if _, err := OpenImage(dir); !errors.As(err, &parent) {
		t.Errorf("a checkpoint that is its own parent: %v", err)
	}
	// Without a state of ours it is whole, whatever it is.
	for what, state := range map[string][]byte{"another VMM's": []byte("QEVM"), "no": nil} {
		if err := os.WriteFile(filepath.Join(dir, StateFile), state, 0o644); err != nil {
			t.Fatal(err)
		}
		img, err := OpenImage(dir)
		if err != nil {
			t.Fatalf("%s state: %v", what, err)
		}
		if state, err := img.State(); img.Differential() || state != nil || err != nil ||
			img.Size() != pageSize {
			t.Errorf("%s state: %d bytes, %v", what, len(state), err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Files of a parent that are no regular files are not waited for.
func TestParentThatIsNoFile(t *testing.T) {
	for _, name := range []string{StateFile, MemoryFile} {
		dir, parent := t.TempDir(), t.TempDir()
		own := []section{{tag: "TEST", data: []byte("x")}}
		c := Changed{Size: pageSize, Parent: parent, ParentID: identify(own)}
		child, err := encodeFile(append(slices.Clone(own), changedSection(t, &c)))
		if err != nil {
			t.Fatal(err)
		}
		whole, err := encodeFile(own)
		if err != nil {
			t.Fatal(err)
		}
		for path, b := range map[string][]byte{
			filepath.Join(dir, StateFile): child, filepath.Join(dir, MemoryFile): make([]byte, pageSize),
			filepath.Join(parent, StateFile): whole, filepath.Join(parent, MemoryFile): make([]byte, pageSize),
		} {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		img, err := OpenImage(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
		path := filepath.Join(parent, name)
		if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenImage(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s of a parent: %v", name, err)
		}
	}
}
