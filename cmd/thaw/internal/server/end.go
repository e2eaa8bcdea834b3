package server

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/fs"
)

// How a server that is asked to end treats a mount in use.
const (
	busyPatience = 3 * time.Second        // how long it waits before it detaches
	busyRetry    = 200 * time.Millisecond // between tries to unmount
)

// Run serves until the mount ends: by umount, or because ctx ended (SIGTERM, SIGINT).
func (s *Server) Run(ctx context.Context) error {
	restart := make(chan os.Signal, 1)
	if s.Holder != nil {
		signal.Notify(restart, syscall.SIGUSR2)
		defer signal.Stop(restart)
	}
	var err error
	select {
	case program := <-s.upgrade:
		return s.handOver(program)
	case <-restart:
		if s.Holder != nil && s.Holder.Keeps {
			return s.letGo()
		}
		s.Note("thaw: SIGUSR2 lets go of the mount for another server, and nobody would start one: it is ignored")
		return s.Run(ctx)
	case <-s.gone:
		s.tellSystemd("STOPPING=1")
		s.Note("thaw: %s was unmounted", s.Mount)
	case <-ctx.Done():
		again, stop := nextSignals()
		defer stop()
		s.tellSystemd("STOPPING=1")
		err = s.unmount(again)
	}
	return errors.Join(err, s.close())
}

// nextSignals gives the signals that come from now on. The signal that ended the context is not among
// them: it goes to all channels that are registered at that moment, in any order, so that a channel
// registered before would have it at any time after the context has ended, and one SIGTERM would count
// as two.
func nextSignals() (signals <-chan os.Signal, stop func()) {
	again := make(chan os.Signal, 4)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	return again, func() { signal.Stop(again) }
}

// tellSystemd says how the service is, where this is one.
func (s *Server) tellSystemd(state string) {
	tell := process.Notify
	if s.Holder != nil {
		tell = s.Holder.Tell
	}
	if err := tell(state); err != nil {
		s.Log.Warn("tell systemd", "err", err)
	}
}

// unmount ends the mount; while it is in use it says so, waits, then detaches it and serves what
// is open until it is closed. A signal on again ends it at once.
func (s *Server) unmount(again <-chan os.Signal) error {
	deadline := time.Now().Add(busyPatience)
	for told := false; !s.detached.Load(); told = true {
		err := s.take(context.Background(), time.Now().After(deadline))
		if s.detached.Load() {
			break
		}
		if !errors.Is(err, fs.ErrBusy) {
			return err
		}
		if !told {
			s.Note("thaw: %s is in use%s: trying again for %v", s.Mount, access.UsersOf(err), busyPatience)
		}
		select {
		case <-s.gone:
			return nil
		case <-again:
			s.Note("thaw: cutting off %s, in use%s", s.Mount, access.UsersOf(err))
			return fs.Abort(s.Mount)
		case <-time.After(busyRetry):
		}
	}
	select {
	case <-s.gone:
		return nil
	case <-again:
		// The end of the process is the end of the connection. There is nothing left to join: the
		// kernel would keep it as long as somebody has a file open.
		s.abandoned = true
		s.unkeep()
		return exitcode.Errorf(exitcode.Interrupted, "%s was cut off from what used it", s.Mount)
	}
}

// take takes the mount away; with detach also one that is in use, whose connection the kernel keeps
// for what is open.
func (s *Server) take(ctx context.Context, detach bool) error {
	if !detach {
		err := s.fs.Unmount(ctx)
		if in, ok := errors.AsType[*fs.InUseError](err); ok && in.Gone {
			s.detached.Store(true)
		}
		return err
	}
	err := s.fs.Detach(ctx)
	if !errors.Is(err, fs.ErrBusy) {
		return exitcode.With(exitcode.Mount, err)
	}
	s.detached.Store(true)
	s.tellSystemd("STATUS=Detached; it ends when nothing uses it any more")
	s.Note("thaw: %s is detached. It is in use%s and is served until all files are closed; "+
		"%s", s.Mount, access.UsersOf(err), control.GiveUpHint(s.Mount))
	return nil
}
