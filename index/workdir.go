package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
)

// workDirPrefix begins the temporary name of the directory that an export is written in.
const workDirPrefix = ".thaw-export-"

// workDir is a directory that is filled under a temporary name and then renamed. The process that fills
// it holds a lock on it; one without a lock is garbage.
type workDir struct {
	path string // "" once it has its name, or is gone
	lock *os.File
}

// newWorkDir makes one in parent, and removes those there whose processes have died.
func newWorkDir(parent string) (*workDir, error) {
	sweepWorkDirs(parent)
	const attempts = 16
	for range attempts {
		path, err := os.MkdirTemp(parent, workDirPrefix) // mode 0700
		if err != nil {
			return nil, err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed by another export before it was locked
		}
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(path))
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && isStill(path, f) {
			// Without locks on this file system nobody removes it either.
			return &workDir{path: path, lock: f}, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("make a directory in %s: other processes remove it again and again", parent)
}

// isStill says whether path is what f has open.
func isStill(path string, f *os.File) bool {
	now, err := os.Lstat(path)
	if err != nil {
		return false
	}
	was, err := f.Stat()
	return err == nil && os.SameFile(now, was)
}

// sweepWorkDirs removes what killed exports left in parent. What cannot be removed stays.
func sweepWorkDirs(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), workDirPrefix) {
			sweepWorkDir(filepath.Join(parent, e.Name()))
		}
	}
}

func sweepWorkDir(path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || int(st.Uid) != os.Geteuid() {
		return
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && isStill(path, f) {
		_ = os.RemoveAll(path)
	}
}

// publish makes the directory durable and gives it its name, which must be free.
func (w *workDir) publish(name string) error {
	if err := blob.SyncDir(w.path); err != nil {
		return err
	}
	// A directory can be renamed over an empty one; this one must be new.
	err := unix.Renameat2(unix.AT_FDCWD, w.path, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = os.Rename(w.path, name)
	}
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	w.path = ""
	return blob.SyncDir(filepath.Dir(name))
}

// discard removes the directory unless it has its name.
func (w *workDir) discard() error {
	var err error
	if w.path != "" {
		err = os.RemoveAll(w.path)
	}
	return errors.Join(err, w.lock.Close())
}
