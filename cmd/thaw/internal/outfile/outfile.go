// Package outfile writes the files that a command is asked for. After an error a file is as it was
// before.
//
// A file is written beside its place under a hidden name and then renamed. The writer holds a lock
// (flock) on it, so what a killed command left is known by its missing lock and is removed by the
// next one that writes a file of that name.
package outfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Private is the mode of a file that contains guest memory, or tells of a machine.
const Private os.FileMode = 0o600

// infix is in the names of files that are not complete: .NAME.thaw-part-123.
const infix = ".thaw-part-"

// An Error says which file could not be written. An existing file is unchanged.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("write %s: %v", e.Path, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Write makes the file path with what write writes. A new file has the permissions perm, a replaced
// one keeps its own. If path is not a regular file, such as a pipe, it is written to.
func Write(path string, perm os.FileMode, write func(io.Writer) error) error {
	if err := replace(path, perm, write); err != nil {
		return &Error{path, err}
	}
	return nil
}

func replace(path string, perm os.FileMode, write func(io.Writer) error) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return writeTo(path, write)
	default:
		perm = st.Mode().Perm()
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	f, err := create(path)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = errors.Join(f.Chmod(perm), f.Sync())
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return errors.Join(err, f.Close())
}

// writeTo writes to an existing file.
func writeTo(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// create makes the hidden file beside path, locked, when it has removed those of killed commands.
func create(path string) (*os.File, error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	collect(dir, "."+base+infix)
	f, err := os.CreateTemp(dir, "."+base+infix+"*")
	if err != nil {
		return nil, err
	}
	// Another command may have collected it already: then the file is gone, and the rename fails.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), os.Remove(f.Name()), f.Close())
	}
	return f, nil
}

// collect removes the files with a prefix that nobody writes any more. What cannot be removed is
// left: it does no harm.
func collect(dir, prefix string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !e.Type().IsRegular() {
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(f.Name())
		}
		_ = f.Close()
	}
}
