package uffd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// Options is how to serve one VM.
type Options struct {
	Socket   string
	Source   Source
	Policy   Policy
	Patience time.Duration    // how long a VM may take to connect; 0: as long as it likes
	Guard    func() *exec.Cmd // makes the command that calls GuardMain
	Log      *slog.Logger
	Note     func(format string, args ...any) // tells the user something, one line
	Ready    func()                           // the socket is there
}

// Serve waits for one VM, and serves it until it ends or needs it no more. If it cannot be served, it is
// ended: then there is an error, and a report if it was served for a while.
func Serve(ctx context.Context, o Options) (*Report, error) {
	l, err := listen(ctx, o.Socket)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		return nil, err
	}
	g, err := startGuard(o.Guard(), f)
	f.Close()
	if err != nil {
		return nil, err
	}
	s := &session{Options: o, guard: g}
	defer func() { s.guard.close(s.safe) }()
	o.Ready()
	c, h, wire, err := s.meet(ctx)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	defer h.close()
	// From here on nobody else is let in: a path that is gone tells others sooner than a silent socket.
	_ = l.Close()
	s.guard.tell(tellServed)
	return s.serve(ctx, c, h, wire)
}

// A session is one VM being served.
type session struct {
	Options
	guard *guard
	vm    *peer
	// safe: nobody depends on this process any more. In all other cases, a panic among them, the guard
	// has to act.
	safe bool
}

// meet waits for a VM's message. Who connects and sends nothing is nobody.
func (s *session) meet(ctx context.Context) (*caller, *hello, []wireRegion, error) {
	for {
		c, err := s.guard.next(ctx, s.Patience)
		if err != nil {
			return nil, nil, nil, err
		}
		h, wire, err := receive(ctx, c.conn)
		if !errors.Is(err, errNobody) {
			if err != nil {
				return nil, nil, nil, s.refuse(c, &h, err)
			}
			return c, &h, wire, nil
		}
		c.conn.Close()
		unix.Close(c.pidfd)
		s.guard.tell(tellNobody)
	}
}

// refuse is the end of a VM that cannot be served. It is killed if it depends on that.
func (s *session) refuse(c *caller, h *hello, why error) error {
	defer c.conn.Close()
	h.close()
	err := exitcode.WithHint(exitcode.Handshake, fmt.Errorf("the handshake of process %d: %w", c.pid, why),
		`"thaw help uffd" says what a VMM has to send`)
	switch {
	case c.pidfd < 0:
		if h.depends {
			err = fmt.Errorf("%w; it cannot be ended (%w), and waits for its memory for ever", err, c.why)
		}
		return err
	case !h.depends:
		s.safe = true
		unix.Close(c.pidfd)
		return err
	}
	vm, verr := newPeer(c.pid, c.pidfd)
	if verr == nil {
		defer vm.close()
		verr = vm.kill()
	}
	if verr == nil {
		verr = vm.wait()
	}
	if verr != nil {
		return errors.Join(err, verr)
	}
	s.safe = true
	return fmt.Errorf("%w; the VM was ended, since it would wait for its memory for ever", err)
}

// serve serves a VM that has sent its message.
func (s *session) serve(ctx context.Context, c *caller, h *hello, wire []wireRegion) (*Report, error) {
	if c.pidfd < 0 {
		return nil, s.refuse(c, h, fmt.Errorf("this process could not end it, as it may have to: %w", c.why))
	}
	p, err := s.prepare(ctx, h, wire)
	if errors.Is(err, errGone) {
		unix.Close(c.pidfd)
		return nil, exitcode.With(exitcode.Handshake, fmt.Errorf("process %d has ended after its handshake", c.pid))
	}
	if lost, ok := errors.AsType[*LostError](err); ok {
		_ = s.refuse(c, h, err)
		return nil, lostError(c.pid, lost)
	}
	if err != nil {
		return nil, s.refuse(c, h, err)
	}
	if s.vm, err = newPeer(c.pid, c.pidfd); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	defer s.vm.close()
	s.Note("thaw: serving the memory of process %d", c.pid)
	return s.run(ctx, p)
}

// prepare checks what a VM has sent, against the image and against what it has. Its messages are read
// from then on, and its faults are answered later.
func (s *session) prepare(ctx context.Context, h *hello, wire []wireRegion) (*pager, error) {
	fd, err := h.userfaultfd()
	if err != nil {
		return nil, err
	}
	l, err := newLayout(wire, s.Source.Pages()*smallPage)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("userfaultfd: %w", err)
	}
	p := newPager(ctx, s.Source, newMemory(l, descriptor(fd)), s.Log)
	h.fds = nil // it is the pager's now
	if err = p.listen(os.NewFile(uintptr(fd), "userfaultfd")); err == nil {
		err = s.probe(p)
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// probe looks whether the VM has the memory that it says. It ends when messages are not read any more:
// memory that is changing would do so for ever.
func (s *session) probe(p *pager) error {
	buf := make([]byte, p.mem.pageSize)
	return p.mem.probe(p.ctx, func(unit uint64) ([]byte, error) {
		if err := s.Source.Read(unit*p.perUnit(), buf); err != nil {
			return nil, p.lost(unit*p.perUnit(), err)
		}
		return buf, nil
	})
}

// run serves until something ends that.
func (s *session) run(ctx context.Context, p *pager) (*Report, error) {
	letGo := make(chan error, 1)
	p.start()
	p.work.Go(func() {
		p.bring(s.Policy, func() { letGo <- p.letGo(p.mem.uf.(descriptor)) })
	})
	end, err := s.await(ctx, p, letGo)
	var kerr error
	if end == Killed {
		kerr = s.vm.kill()
	}
	if serr := p.stop(); serr != nil {
		err = errors.Join(err, serr)
	}
	if end == Killed && kerr == nil {
		kerr = s.vm.wait()
	}
	s.safe, err = kerr == nil, errors.Join(err, kerr)
	return p.report(s.vm.pid, end), err
}

// await waits for the end, and says which one it is.
func (s *session) await(ctx context.Context, p *pager, letGo <-chan error) (end string, err error) {
	for {
		select {
		case <-s.vm.ended:
			return Ended, nil
		case err := <-letGo:
			if err == nil {
				return LetGo, nil
			}
			return Killed, lostError(s.vm.pid, err)
		case err := <-p.fail:
			if !s.vm.alive() { // its memory goes before it does
				return Ended, nil
			}
			return Killed, lostError(s.vm.pid, err)
		case <-s.guard.ended:
			if err := s.replaceGuard(); err != nil {
				return Killed, lostError(s.vm.pid, err)
			}
		case <-ctx.Done():
			return Killed, exitcode.Errorf(exitcode.Interrupted, "interrupted: the VM (process %d) was ended, "+
				"since nobody would serve its memory", s.vm.pid)
		}
	}
}

// replaceGuard starts another guard in place of one that died.
func (s *session) replaceGuard() error {
	s.guard.conn.Close()
	g, err := startGuard(s.Guard(), nil)
	if err != nil {
		return err
	}
	s.guard = g
	s.Log.Warn("the guard of a VM died, and was replaced", "vm", s.vm.pid)
	return g.watch(s.vm.fd)
}

// lostError is the error for a VM that was ended because it could not be served.
func lostError(pid int, why error) error {
	return exitcode.WithHint(exitcode.MemoryLost,
		fmt.Errorf("%w; the VM (process %d) was ended, since it would wait for its memory for ever", why, pid),
		`"thaw check STORE --read-data" says what is damaged; is it a mount, does its server live?`)
}
