package vmm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A checkpoint is written into a hidden directory beside its place, .NAME.thaw-part-123, and its
// writer holds a lock (flock) on that until it is over. So what a killed process left is known by
// its missing lock, and the next checkpoint in the same place removes it.

// unfinishedInfix is in the names of checkpoints in the making.
const unfinishedInfix = ".thaw-part-"

// makeUnfinished makes the directory of a checkpoint in the making.
func (s *save) makeUnfinished() error {
	parent, base := filepath.Split(s.dir)
	if err := removeUnfinished(parent); err != nil {
		s.m.log.Warn("what a killed checkpoint left stays", "err", err)
	}
	for {
		tmp, err := s.opt.fileSystem.MkdirTemp(parent, "."+base+unfinishedInfix)
		if err != nil {
			return err
		}
		s.held, err = hold(tmp)
		if err == nil {
			s.tmp = tmp
			return nil
		}
		// Another process saw it before it was locked, and takes it away.
		if !errors.Is(err, errHeld) && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(err, s.opt.fileSystem.RemoveAll(tmp))
		}
	}
}

// errHeld: somebody has the lock.
var errHeld = errors.New("another process holds it")

// hold locks a directory for as long as the file is open. On a file system without locks nobody can
// take it for a dead one's either.
func hold(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, errHeld), f.Close())
	}
	// It may have been removed between the open and the lock.
	if _, err := os.Lstat(dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// removeUnfinished removes the unfinished checkpoints in a directory that nobody writes any more.
func removeUnfinished(parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil // the checkpoint itself finds out what is wrong
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), ".") ||
			!strings.Contains(e.Name(), unfinishedInfix) {
			continue
		}
		errs = append(errs, removeIfDead(filepath.Join(parent, e.Name())))
	}
	return errors.Join(errs...)
}

// removeIfDead removes a directory that nobody has locked.
func removeIfDead(dir string) error {
	f, err := hold(dir)
	if errors.Is(err, errHeld) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(dir), f.Close())
}
