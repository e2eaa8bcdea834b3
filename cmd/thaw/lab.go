package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// lab is a place where one machine is saved once and restored many times, each time in processes
// of its own and from a cold page cache: a directory with the checkpoint, a store and a mount
// point. What it started it ends, and what it made it removes.
type lab struct {
	a     *app
	start time.Time

	dir        string // everything lies in it
	keep       bool   // it is not removed
	checkpoint string // the saved machine
	store, mnt string

	// kernelShare is how much of the time the saved machine's vCPUs were in the kernel before anybody
	// looked for its working set.
	kernelShare float64

	children []*child // started and not yet known to have ended, oldest first
}

// newLab makes the directory: keep, which must not exist, or a temporary one.
func newLab(a *app, keep string) (l *lab, err error) {
	l = &lab{a: a, start: time.Now(), keep: keep != ""}
	if l.keep {
		if l.dir, err = filepath.Abs(keep); err != nil {
			return nil, err
		}
		if err := os.Mkdir(l.dir, 0o700); err != nil {
			return nil, exitcode.With(exitcode.Exists, fmt.Errorf("--keep wants a new directory: %w", err))
		}
	} else if l.dir, err = os.MkdirTemp("", "thaw-lab-"); err != nil {
		return nil, err
	}
	l.checkpoint = filepath.Join(l.dir, "checkpoint")
	l.store = filepath.Join(l.dir, "store")
	l.mnt = filepath.Join(l.dir, "mnt")
	return l, os.Mkdir(l.mnt, 0o700)
}

// stage tells what happens now, with the seconds since the start.
func (l *lab) stage(format string, args ...any) {
	l.a.note("[%5.1f s] %s", time.Since(l.start).Seconds(), fmt.Sprintf(format, args...))
}

// close ends what still runs, takes the mount away and removes the files.
func (l *lab) close() error {
	var errs []error
	// Machines first, youngest first: a server does not end under them.
	for i := len(l.children) - 1; i >= 0; i-- {
		errs = append(errs, l.children[i].stop())
	}
	if err := fs.Abort(l.mnt); err != nil && !errors.Is(err, fs.ErrNotMounted) {
		errs = append(errs, err) // it is there still where its server had to be killed
	}
	if !l.keep {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// importAs puts a checkpoint directory into the lab's store, with its working set as it is, however
// large: what that costs is what the lab is for.
func (l *lab) importAs(ctx context.Context, dir, name string) (index.ImportStats, error) {
	var reply importReply
	src, err := openSource(dir)
	if err != nil {
		return index.ImportStats{}, fmt.Errorf("import: %w", err)
	}
	defer src.close()
	err = l.a.writeStore(ctx, l.store, index.OpenOptions{Create: true},
		func(s *index.Store) (err error) {
			p := l.a.progress()
			defer p.done()
			reply, err = importInto(ctx, s, src, importRequest{Name: name, MaxShare: 1}, l.a.log, p.set)
			return err
		})
	if err != nil {
		return index.ImportStats{}, fmt.Errorf("import: %w", err)
	}
	return reply.Stats, nil
}

// usableKVM says what the host lacks for a machine.
func usableKVM() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return exitcode.WithHint(exitcode.Unsupported, fmt.Errorf("this host cannot run machines: %w",
			err),
			`load the module kvm_intel or kvm_amd, get into the group "kvm", or allow nested `+
				`virtualisation; "thaw doctor" tells more`)
	}
	return f.Close()
}
