package vmm

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/state"
)

// The next checkpoint removes the files of a killed one. It keeps those that another process is
// writing, and those that are not of a checkpoint.
func TestUnfinishedCheckpoints(t *testing.T) {
	parent := t.TempDir()
	newSave := func() *save {
		s := &save{m: &Machine{log: slog.New(slog.DiscardHandler)}, dir: filepath.Join(parent, "sv"),
			opt: checkpointOptions{fileSystem: hostFiles{}}}
		if err := s.makeUnfinished(); err != nil {
			t.Fatal(err)
		}
		if f, err := s.create(state.MemoryFile); err != nil || f == nil {
			t.Fatal(err)
		}
		return s
	}
	killed := newSave()
	if err := errors.Join(killed.closeFiles(), killed.letGo()); err != nil { // as the kernel does it
		t.Fatal(err)
	}
	foreign := filepath.Join(parent, ".others")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	first := newSave()
	second := newSave()
	for path, want := range map[string]bool{killed.tmp: false, foreign: true, first.tmp: true,
		second.tmp: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v, want it to be there: %v", path, err, want)
		}
	}
	if err := errors.Join(first.discard(), second.discard()); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(parent)
	if err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// noLocks is a file system without locks.
type noLocks struct{ hostFiles }

func (noLocks) Lock(*os.File) error { return unix.ENOLCK }

// On a file system without locks a checkpoint can be written, and does not remove another one that is
// being written.
func TestUnfinishedWithoutLocks(t *testing.T) {
	parent := t.TempDir()
	newSave := func() *save {
		s := &save{m: &Machine{log: slog.New(slog.DiscardHandler)}, dir: filepath.Join(parent, "sv"),
			opt: checkpointOptions{fileSystem: noLocks{}}}
		if err := s.makeUnfinished(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := newSave()
	second := newSave()
	for _, s := range []*save{first, second} {
		if _, err := os.Stat(s.tmp); err != nil {
			t.Error(err)
		}
		if err := s.discard(); err != nil {
			t.Error(err)
		}
	}
}

// A checkpoint has a guest's memory, so only its owner may read it, whatever the umask is.
func TestCheckpointsArePrivate(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir, err := hostFiles{}.MkdirTemp(t.TempDir(), ".sv"+unfinishedInfix)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, state.MemoryFile)
	f, err := hostFiles{}.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, file: 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}
