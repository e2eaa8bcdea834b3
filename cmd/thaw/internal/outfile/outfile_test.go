package outfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}

func TestWholeOrAsBefore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	unix.Umask(0)
	if err := Write(path, Private, text("one")); err != nil {
		t.Fatal(err)
	}
	check := func(want string, entries int) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("it holds %q, %v; want %q", got, err, want)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != Private {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		all, err := os.ReadDir(dir)
		if err != nil || len(all) != entries {
			t.Errorf("beside it: %v, %v", all, err)
		}
	}
	check("one", 1)
	broken := errors.New("broken")
	err := Write(path, 0o644, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("a failed write: %v", err)
	}
	check("one", 1)
	if err := Write(path, 0o644, text("two")); err != nil {
		t.Error(err)
	}
	check("two", 1)
}

func TestLeftByAKilledCommand(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out")
	stale, err := os.CreateTemp(dir, ".out"+infix+"*")
	if err != nil {
		t.Fatal(err)
	}
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	live, err := create(path) // removes it, and is itself still being written
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if _, err := os.Stat(stale.Name()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	if err := Write(path, Private, text("x")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(live.Name()); err != nil {
		t.Errorf("what another command writes was removed: %v", err)
	}
}

func TestNoRegularFile(t *testing.T) {
	if err := Write("/dev/full", Private, text("x")); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full device: %v", err)
	}
	if st, err := os.Stat("/dev/full"); err != nil || st.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("it is no device any more: %v, %v", st, err)
	}
}
