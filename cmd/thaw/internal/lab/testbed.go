package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// testbed is where one machine is saved once and restored many times: a directory with the
// checkpoint, a store and a mount point, and the processes that use them. What it started it ends,
// and what it made it removes.
type testbed struct {
	program Program
	begin   time.Time

	dir        string // everything lies in it
	keep       bool   // it is not removed
	checkpoint string // the saved machine
	store, mnt string

	processes []*process // all that were started, oldest first
}

// create makes the directory: keep, which must not exist, or a temporary one.
func (t *testbed) create(keep string) (err error) {
	t.begin, t.keep = time.Now(), keep != ""
	if t.keep {
		if t.dir, err = filepath.Abs(keep); err != nil {
			return err
		}
		if err := os.Mkdir(t.dir, 0o700); err != nil {
			return exitcode.With(exitcode.Exists, fmt.Errorf("--keep wants a new directory: %w", err))
		}
	} else if t.dir, err = os.MkdirTemp("", "thaw-lab-"); err != nil {
		return err
	}
	t.checkpoint = filepath.Join(t.dir, "checkpoint")
	t.store = filepath.Join(t.dir, "store")
	t.mnt = filepath.Join(t.dir, "mnt")
	if err := os.Mkdir(t.mnt, 0o700); err != nil {
		return errors.Join(err, os.RemoveAll(t.dir))
	}
	return nil
}

// stage tells what happens now, with the seconds since the start.
func (t *testbed) stage(format string, args ...any) {
	t.program.Note("[%5.1f s] %s", time.Since(t.begin).Seconds(), fmt.Sprintf(format, args...))
}

// remark tells what a part has to say of the stage before.
func (t *testbed) remark(text string) {
	if text != "" {
		t.program.Note("          note: %s", text)
	}
}

// start begins a process of the program.
func (t *testbed) start(name string, args ...string) (*process, error) {
	p := newProcess(name, t.program.Command(args...))
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.watch()
	t.processes = append(t.processes, p)
	return p, nil
}

// serve begins a server and waits until it is ready.
func (t *testbed) serve(ctx context.Context, args ...string) (*process, error) {
	p := newProcess("server", t.program.Command(args...))
	p.mnt = t.mnt
	if err := t.program.StartServer(ctx, p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	p.watch()
	t.processes = append(t.processes, p)
	return p, nil
}

// close ends what still runs, takes the mount away and removes the files; at once when ctx has ended.
func (t *testbed) close(ctx context.Context) error {
	var errs []error
	// The youngest first: a machine ends before the server that has its memory.
	for i := len(t.processes) - 1; i >= 0; i-- {
		errs = append(errs, t.processes[i].stop(ctx))
	}
	// A mount is left where its server had to be killed.
	if err := fs.Abort(t.mnt); err != nil && !errors.Is(err, fs.ErrNotMounted) {
		errs = append(errs, err)
	}
	if !t.keep {
		errs = append(errs, os.RemoveAll(t.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// importAs puts a checkpoint directory into the store.
func (t *testbed) importAs(ctx context.Context, dir, name string) (index.ImportStats, error) {
	st, err := t.program.Import(ctx, t.store, dir, name)
	if err != nil {
		return st, fmt.Errorf("import: %w", err)
	}
	return st, nil
}

// size prints bytes for people, count a number.
func size(n int64) string                { return humanize.IBytes(uint64(max(n, 0))) }
func count[T int64 | uint64](n T) string { return humanize.Comma(int64(n)) }
