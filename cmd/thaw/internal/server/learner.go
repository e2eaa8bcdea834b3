package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/thawfs/thaw/fs"
)

// LearnerCommand is the hidden verb that a server runs to make a working set that was learned, and has proved
// itself, that of its checkpoint. Its arguments are the store, and name and ID of the checkpoint.
const LearnerCommand = "learner-of-a-server"

// A learner runs that process, for one checkpoint at a time. One that fails is run again after the next
// restore: until then restores bring the set as a candidate.
type learner struct {
	command func(c fs.Checkpoint) *exec.Cmd // not started
	refresh func(context.Context)           // the server sees what was done
	log     *slog.Logger
	queue   chan fs.Checkpoint
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// maxProved is how many checkpoints wait at most.
const maxProved = 64

// startLearner begins to wait for sets that have proved themselves.
func startLearner(s *Server) *learner {
	l := &learner{
		log: s.Log,
		command: func(c fs.Checkpoint) *exec.Cmd {
			return s.self(LearnerCommand, s.Store, c.Name, c.ID)
		},
		refresh: func(ctx context.Context) {
			if err := (verbs{s}).Refresh(ctx); err != nil && ctx.Err() == nil {
				s.Log.Warn("a learned working set is not seen yet", "err", err)
			}
		},
	}
	l.start()
	return l
}

func (l *learner) start() {
	ctx, stop := context.WithCancel(context.Background())
	l.queue, l.stop = make(chan fs.Checkpoint, maxProved), stop
	l.done.Go(func() { l.run(ctx) })
}

// proved is told that the set of a checkpoint has proved itself. It waits for nothing.
func (l *learner) proved(c fs.Checkpoint) {
	select {
	case l.queue <- c:
	default: // the next restore says so again
	}
}

// close ends it, and a process that it has started. What that had begun is removed by who writes to the store
// next.
func (l *learner) close() {
	if l != nil {
		l.stop()
		l.done.Wait()
	}
}

func (l *learner) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-l.queue:
			if err := l.once(ctx, c); err == nil {
				l.refresh(ctx)
				l.log.Info("a working set was learned", "checkpoint", c.Name)
			} else if ctx.Err() == nil {
				l.log.Info("a learned working set could not be set; the old one stays, and it is tried again "+
					"after the next restore", "checkpoint", c.Name, "err", err)
			}
		}
	}
}

// once runs the process for a checkpoint.
func (l *learner) once(ctx context.Context, c fs.Checkpoint) error {
	cmd := l.command(c)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOMEMLIMIT=256MiB")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // signals of the terminal are for the server
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
