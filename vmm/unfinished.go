package vmm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A checkpoint is written into a hidden directory beside its final path, .NAME.thaw-part-123, which its
// writer keeps locked (flock). A directory without a lock was left by a killed process, and the next
// checkpoint with the same parent directory removes it.

// unfinishedInfix is part of the names of unfinished checkpoints.
const unfinishedInfix = ".thaw-part-"

// makeUnfinished makes and locks the directory of an unfinished checkpoint.
func (s *save) makeUnfinished() error {
	parent, base := filepath.Split(s.dir)
	if err := removeUnfinished(s.opt.fileSystem, parent); err != nil {
		s.m.log.Warn("files of a killed checkpoint could not be removed", "err", err)
	}
	for {
		tmp, err := s.opt.fileSystem.MkdirTemp(parent, "."+base+unfinishedInfix)
		if err != nil {
			return err
		}
		s.held, err = hold(s.opt.fileSystem, tmp)
		if err == nil || errors.Is(err, errNoLock) {
			s.tmp = tmp
			return nil
		}
		// Another process found the directory before it was locked, and removes it: try again.
		if !errors.Is(err, errHeld) && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(err, s.opt.fileSystem.RemoveAll(tmp))
		}
	}
}

// errHeld: another process has locked the directory.
var errHeld = errors.New("another process is writing it")

// errNoLock: the file system of the directory has no locks.
var errNoLock = errors.New("it cannot be locked")

// hold locks a directory for as long as the returned file is open.
func hold(files fileSystem, dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = files.Lock(f)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, errHeld), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w: %w", dir, errNoLock, err), f.Close())
	}
	// The directory may have been removed between the open and the lock.
	if _, err := os.Lstat(dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeUnfinished removes the unfinished checkpoints in a directory whose writers are gone.
func removeUnfinished(files fileSystem, parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil // the checkpoint will fail with the reason
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), ".") ||
			!strings.Contains(e.Name(), unfinishedInfix) {
			continue
		}
		errs = append(errs, removeIfDead(files, filepath.Join(parent, e.Name())))
	}
	return errors.Join(errs...)
}

// removeIfDead removes a directory that no process has locked. Where there are no locks it removes nothing:
// the writer may be alive.
func removeIfDead(files fileSystem, dir string) error {
	f, err := hold(files, dir)
	if errors.Is(err, errHeld) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(dir), f.Close())
}
