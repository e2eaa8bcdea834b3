package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/cmd/thaw/internal/server"
	"github.com/thawfs/thaw/index"
)

// newIdleRepackCommand is what the server of a mount has beside itself when nothing is asked for: a process
// that repacks the store. Its standard input tells it when to wait and when to go on, and ends with the
// server; it says on its standard output when a pack is done.
func newIdleRepackCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    server.RepackCommand + " STORE",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(runIdleRepack(cmd.Context(), a, args[0]), "repack %s", args[0])
		},
	}
}

func runIdleRepack(ctx context.Context, a *app, store string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := newGate()
	go func() { // it ends with the process: nothing ends a read of standard input
		g.listen(a.stdin)
		cancel()
	}()
	known, err := a.lessons(ctx, store)
	if err != nil {
		return err
	}
	memory := index.NewRepackMemory()
	var damaged error
	for {
		// Again and again: it is taken out of the background while another process waits for the store.
		if err := process.Background(); err != nil {
			a.log.Debug("it takes more of the host than it should", "why", err)
		}
		if err := g.wait(ctx); err != nil {
			return err
		}
		if err := access.LetOthers(ctx, store, index.YieldAll); err != nil {
			return err
		}
		if err := roomToRepack(store); err != nil {
			return errors.Join(err, damaged)
		}
		report, err := repackIdle(ctx, a, store, index.RepackOptions{
			Memory: memory, Most: 1, Seen: known.seen, Wait: g.wait,
		})
		switch {
		case errors.Is(err, index.ErrGaveWay), errors.Is(err, index.ErrLocked):
			continue
		case err != nil && report.Damaged == 0:
			return errors.Join(err, damaged)
		}
		damaged = errors.Join(damaged, err)
		if report.Repacked > 0 {
			fmt.Fprintf(a.stdout, "%s %d %d\n", server.RepackedLine, report.BytesBefore, report.BytesAfter)
		}
		if report.Left == 0 {
			return damaged
		}
	}
}

// repackIdle has the store for one pack at most, and gives it away as soon as another process wants it.
func repackIdle(ctx context.Context, a *app, store string, o index.RepackOptions) (
	index.RepackReport, error,
) {
	s, err := index.Open(ctx, store, index.OpenOptions{
		Log: a.log, Yield: index.YieldAll, Wait: time.Second, Keys: a.stores.Keys,
	})
	if err != nil {
		return index.RepackReport{}, err
	}
	report, err := s.Repack(ctx, o)
	return report, errors.Join(err, s.Close())
}

const (
	// roomShare and enoughRoom are how much of its disk must be free for a store to be repacked: one part in
	// so many, or so many bytes. What machines have open of the packs that were written again takes its space
	// until they close it: without a bound, a repacking that nobody has asked for fills the disk.
	roomShare  = 10
	enoughRoom = 10 << 30
)

// roomToRepack says why the disk of a store has too little room.
func roomToRepack(store string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(store, &st); err != nil {
		return fmt.Errorf("look for room: %w", err)
	}
	return enough(st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize))
}

// enough says why so many free bytes of a disk are too few.
func enough(all, free uint64) error {
	if want := min(all/roomShare, enoughRoom); free < want {
		return exitcode.Errorf(exitcode.NoSpace, "the disk has %s free, and should have %s: the packs that are "+
			"replaced take their space as long as machines have them open", size(int64(free)), size(int64(want)))
	}
	return nil
}

// A gate is shut and opened by another process.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while it is open; guarded by mu
	last time.Time     // when wait returned; of one goroutine
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

// listen does what is said, until there is an end of it.
func (g *gate) listen(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		switch lines.Text() {
		case server.RepackPause:
			g.set(false)
		case server.RepackGoOn:
			g.set(true)
		}
	}
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		if !open {
			g.open = make(chan struct{})
		}
	default:
		if open {
			close(g.open)
		}
	}
}

// maxRest bounds what wait takes while the gate is open.
const maxRest = 500 * time.Millisecond

// wait returns when the gate is open. Before that it rests for as long as the caller has worked since wait
// returned last: so the process takes half of a processor at most, and half of what the disk gives it.
func (g *gate) wait(ctx context.Context) error {
	rest := min(time.Since(g.last), maxRest)
	if g.last.IsZero() {
		rest = 0
	}
	defer func() { g.last = time.Now() }()
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
