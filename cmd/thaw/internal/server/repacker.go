package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/index"
)

// RepackCommand is the hidden verb that a server runs to have its store repacked while nothing is asked
// for. It gets RepackPause and RepackGoOn on lines of its standard input, and says RepackedLine on its
// standard output for each pack that is done.
const (
	RepackCommand = "repacker-of-a-server"
	RepackPause   = "pause"
	RepackGoOn    = "go on"
	RepackedLine  = "repacked"
)

// Repacking is whether a server has its store repacked.
type Repacking struct {
	// Idle: while nothing is asked for.
	Idle bool
	// After is how long nothing must have been asked for before it begins.
	After time.Duration
	// Always: also a store of another user, and one on a simulated disk.
	Always bool
}

const (
	repackLook  = 50 * time.Millisecond // between two looks for READs
	repackQuiet = time.Second           // without READs, before a repacking that waits goes on
	repackRetry = 10 * time.Minute      // after one that failed
	repackEnd   = 5 * time.Second       // that it may take to end, or to give the store to another process
)

// A repacker runs the process that repacks a store, when there may be something to do: after the mount was
// made, and after each change of the store.
type repacker struct {
	after   time.Duration         // see Repacking
	command func() *exec.Cmd      // not started
	demand  func() (uint64, bool) // see fs.Server.Demand
	refresh func(context.Context) // the server sees what was done
	idle    func()                // it lets go of what nobody uses
	waited  func(pid int) bool    // for a process that has the store, by another one
	hurry   func(pid int) error   // it gets what others get of the host
	log     *slog.Logger
	changed chan struct{} // one is in it: the store has changed
	stop    context.CancelFunc
	done    sync.WaitGroup

	reads uint64    // that the server had answered when it was looked at last
	busy  time.Time // when something was asked for last
}

// startRepacker begins to repack, if that is wanted and possible.
func startRepacker(s *Server) *repacker {
	if why := s.noRepacking(); why != "" {
		s.Log.Info("the store is not repacked by its server", "why", why)
		return nil
	}
	r := &repacker{
		after: s.Repack.After, demand: s.fs.Demand, idle: s.fs.CloseIdle, log: s.Log,
		command: func() *exec.Cmd { return s.self(RepackCommand, s.Store) },
		hurry:   process.Hurry,
		waited: func(pid int) bool {
			return index.WriterWaits(s.Store, index.YieldAll) && index.WriterOf(s.Store) == pid
		},
		refresh: func(ctx context.Context) {
			err := s.reader.Refresh(ctx)
			if err == nil {
				err = s.fs.Refresh(ctx) // checkpoints may have new generations
			}
			if err != nil && ctx.Err() == nil {
				s.Log.Warn("what was repacked is not seen yet", "err", err)
			}
		},
	}
	r.start()
	return r
}

func (r *repacker) start() {
	ctx, stop := context.WithCancel(context.Background())
	r.changed, r.stop, r.busy = make(chan struct{}, 1), stop, time.Now()
	r.done.Go(func() { r.run(ctx) })
}

// noRepacking says why the server does not repack; "" if it does.
func (s *Server) noRepacking() string {
	switch {
	case !s.Repack.Idle:
		return "--repack=off"
	case s.lock == nil:
		return "it can only be read"
	case s.Repack.Always:
		return ""
	case s.disk != nil:
		return "its disk is a simulated one, for measurements"
	}
	st, err := os.Stat(s.Store)
	if err != nil {
		return err.Error()
	}
	if owner, ok := st.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Sprintf("it belongs to user %d; --repack=idle repacks it all the same", owner.Uid)
	}
	return access.Unwritable(s.Store)
}

// change tells the repacker that there may be something to do.
func (r *repacker) change() {
	if r == nil {
		return
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// close ends the repacking.
func (r *repacker) close() {
	if r != nil {
		r.stop()
		r.done.Wait()
	}
}

func (r *repacker) run(ctx context.Context) {
	for r.await(ctx, r.after) {
		select {
		case <-r.changed: // it will be seen
		default:
		}
		err := r.once(ctx)
		if err != nil && ctx.Err() == nil {
			r.log.Info("the store could not be repacked; it is tried again later", "err", err,
				"after_a_change", lasting(err))
		}
		if !r.sleep(ctx, err != nil && !lasting(err)) {
			return
		}
	}
}

// lasting says whether the process failed because of the store, as which it would fail again and again after
// much work: something is damaged, or of another version.
func lasting(err error) bool {
	var e *exec.ExitError
	if !errors.As(err, &e) {
		return false
	}
	switch exitcode.Code(e.ExitCode()) {
	case exitcode.Corrupt, exitcode.Damaged, exitcode.Version:
		return true
	}
	return false
}

// sleep returns true when the store has changed, or after a while where something failed; false when ctx
// ends.
func (r *repacker) sleep(ctx context.Context, failed bool) bool {
	var again <-chan time.Time
	if failed {
		t := time.NewTimer(repackRetry)
		defer t.Stop()
		again = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-r.changed:
	case <-again:
	}
	return true
}

// await returns true when nothing was asked for for some time; false when ctx ends.
func (r *repacker) await(ctx context.Context, quiet time.Duration) bool {
	look := time.NewTicker(repackLook)
	defer look.Stop()
	for r.quietFor(time.Now()) < quiet {
		select {
		case <-look.C:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// quietFor is how long nothing was asked for.
func (r *repacker) quietFor(now time.Time) time.Duration {
	reads, busy := r.demand()
	if busy || reads != r.reads {
		r.reads, r.busy = reads, now
	}
	return now.Sub(r.busy)
}

// once runs the process until it ends, or ctx does.
func (r *repacker) once(ctx context.Context) error {
	cmd := r.command()
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOMEMLIMIT=256MiB")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // signals of the terminal are for the server
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = repackEnd
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return errors.Join(err, in.Close())
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	over := make(chan struct{})
	var steering sync.WaitGroup
	steering.Go(func() { r.steer(ctx, cmd, in, over) })
	packs := r.follow(ctx, out)
	err = cmd.Wait()
	close(over)
	steering.Wait()
	if packs > 0 && ctx.Err() == nil {
		// Nobody opens the old packs again, and their space is free when nobody has them open.
		r.idle()
		r.log.Info("the store was repacked", "packs", packs)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// steer lets the process work while nothing is asked for, and ends it when ctx ends. It kills it when it
// does not give the store to another process that waits for it, although it is hurried: it may have been
// stopped, or get no time at all of a processor that others use.
func (r *repacker) steer(ctx context.Context, cmd *exec.Cmd, in io.WriteCloser, over <-chan struct{}) {
	look := time.NewTicker(repackLook)
	defer look.Stop()
	defer context.AfterFunc(ctx, func() { _ = in.Close() })() // one that hears nothing ends no writing to it
	paused, killed := false, false
	var wanted time.Time // since when another process waits; zero: none does
	for {
		select {
		case <-over:
			return
		case <-ctx.Done():
			r.end(cmd, in, over)
			return
		case <-look.C:
		}
		now := time.Now()
		switch waited := r.waited(cmd.Process.Pid); {
		case !waited:
			wanted = time.Time{}
		case wanted.IsZero():
			wanted = now
			if err := r.hurry(cmd.Process.Pid); err != nil {
				r.log.Debug("the process that repacks the store gives it away when it gets to it", "why", err)
			}
		case !killed && now.Sub(wanted) >= repackEnd:
			r.log.Warn("the process that repacks the store does not give it to another one, and is killed")
			_ = cmd.Process.Kill() // what it had begun is removed by the next process that writes to the store
			killed = true
		}
		quiet := r.quietFor(now)
		// A line that it does not take is no harm: it has ended, or will take the next one.
		switch {
		case !paused && quiet == 0:
			_, _ = io.WriteString(in, RepackPause+"\n")
			paused = true
		case paused && quiet >= repackQuiet:
			_, _ = io.WriteString(in, RepackGoOn+"\n")
			paused = false
		}
	}
}

// end ends the process: it is asked to, and killed if it does not.
func (r *repacker) end(cmd *exec.Cmd, in io.Closer, over <-chan struct{}) {
	_ = in.Close()
	t := time.NewTimer(repackEnd)
	defer t.Stop()
	select {
	case <-over:
		return
	case <-t.C:
	}
	_ = cmd.Process.Kill() // what it had begun is removed by the next process that writes to the store
	<-over
}

// follow reads what the process says until it has ended, and lets the server see what it does.
func (r *repacker) follow(ctx context.Context, out io.Reader) (packs int) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if !bytes.HasPrefix(lines.Bytes(), []byte(RepackedLine+" ")) {
			continue
		}
		packs++
		r.refresh(ctx)
	}
	return packs
}
