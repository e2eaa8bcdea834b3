package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/holder"
	"github.com/thawfs/thaw/cmd/thaw/internal/native"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// What a server leaves to the next one, by name, besides the connection itself: the lock, which is held all
// the time, so that no command takes the store for one without a server; and the listeners, whose
// clients wait.
const (
	lockFile    = "lock"
	controlFile = "control"
	metricsFile = "metrics"
	debugFile   = "debug"
)

// TakesOver says whether there is a mount to go on with.
func (o Options) TakesOver() bool {
	return o.Given[holder.DeviceFile] != nil && o.Given[holder.LedgerFile] != nil
}

// Locked says whether it was given the lock of the store's server.
func (o Options) Locked() bool { return o.Given[lockFile] != nil }

// Connection is the mount to go on with.
func (o Options) Connection() fs.Connection {
	return fs.Connection{
		Device: int(o.Given[holder.DeviceFile].Fd()), Ledger: int(o.Given[holder.LedgerFile].Fd()),
	}
}

// takeOver goes on with the mount of the server before. Machines wait: so what they need comes first, and all
// else when they are served.
func (s *Server) takeOver(ctx context.Context) error {
	c := s.Connection()
	info, err := c.Info()
	if err != nil {
		return err
	}
	s.Mount, s.dir = info.Mount, filepath.Dir(info.ControlSocket)
	if err := s.openStore(ctx, s.adoptLock); err != nil {
		return err
	}
	fo := s.fsOptions()
	fo.Prober = &s.late
	mounted, err := fs.TakeOver(ctx, fs.NewNamedStore(s.reader, native.Names), c, fo)
	if err != nil {
		return err
	}
	s.serves(mounted)
	if err := s.Holder.Tell("READY=1"); err != nil { // what follows may take time on a busy host
		s.Log.Warn("tell the holder", "err", err)
	}
	s.kept = s.Holder != nil && s.Holder.Keeps
	_ = s.Given[holder.DeviceFile].Close() // the file system has its own
	_ = s.Given[holder.LedgerFile].Close()
	if s.prober = startProber(ctx, s.Log); s.prober != nil {
		s.late.Store(s.prober)
	}
	if s.listener, err = s.adoptListener(); err != nil {
		s.abandoned = true // the next server serves it
	}
	return err
}

// Forsake gives up the mount of the server before: it is dead, or requests of it may be lost, so it is cut.
// Then the store can be mounted anew.
func (o *Options) Forsake() error {
	var err error
	if info, ierr := o.Connection().Info(); ierr == nil && info.Alive {
		err = fs.AbortConnection(info.Minor)
	}
	for _, name := range leftFiles {
		_ = o.Holder.Drop(name) // it may have died
		if f := o.Given[name]; f != nil && name != lockFile {
			_ = f.Close()
			delete(o.Given, name)
		}
	}
	return err
}

// leftFiles are the names of all that a server may leave to the next one.
var leftFiles = []string{
	holder.DeviceFile, holder.LedgerFile, lockFile, controlFile, metricsFile, debugFile,
}

// adoptLock goes on with the lock of the server before.
func (s *Server) adoptLock(ctx context.Context) error {
	if f := s.Given[lockFile]; f != nil {
		s.lock = index.AdoptServerLock(f, s.Mount)
		delete(s.Given, lockFile)
		return nil
	}
	return s.takeLock(ctx)
}

func (s *Server) adoptListener() (*control.Listener, error) {
	if f := s.Given[controlFile]; f != nil {
		defer f.Close()
		return control.Adopt(f, filepath.Join(s.dir, control.SocketName))
	}
	return control.Listen(s.dir)
}

// lateProber is a prober that comes after the file system has begun to serve.
type lateProber struct {
	atomic.Pointer[fs.ProcessProber]
}

func (p *lateProber) Cached(ctx context.Context, path string) (uint64, error) {
	if to := p.Load(); to != nil {
		return to.Cached(ctx, path)
	}
	return 0, fs.ErrNoProber
}

func (p *lateProber) Owns(tid uint32) bool {
	to := p.Load()
	return to != nil && to.Owns(tid)
}

// leaves are what the next server needs, in copies of its own; nil if there is none: the mount was not made
// by this server itself.
func (s *Server) leaves() (process.Files, error) {
	c, ok := s.fs.Connection()
	if !ok {
		return nil, fs.ErrNotOurs
	}
	fds := map[string]int{holder.DeviceFile: c.Device, holder.LedgerFile: c.Ledger}
	if s.lock != nil {
		fds[lockFile] = int(s.lock.File().Fd())
	}
	files := process.Files{}
	for name, fd := range fds {
		f, err := process.CopyOf(name, fd)
		if err != nil {
			return nil, errors.Join(err, files.Close())
		}
		files[name] = f
	}
	listeners := map[string]interface{ File() (*os.File, error) }{controlFile: s.listener}
	for _, h := range s.http {
		if l, ok := h.on.(interface{ File() (*os.File, error) }); ok {
			listeners[h.name] = l
		}
	}
	for name, l := range listeners {
		f, err := l.File()
		if err != nil {
			return nil, errors.Join(err, files.Close())
		}
		files[name] = f
	}
	return files, nil
}

// keep gives the holder what another server needs when this one dies, where the kernel can go on then.
func (s *Server) keep() {
	if s.Holder == nil || !s.Holder.Keeps || s.kept || s.Alone {
		return
	}
	if survives, why := s.resends(); !survives {
		s.Log.Info("if this server dies, its mount ends", "why", why)
		return
	}
	if err := s.give(); err != nil {
		s.Log.Error("if this server dies, its mount ends", "err", err)
	}
}

// give gives the holder all that it needs.
func (s *Server) give() error {
	files, err := s.leaves()
	if err != nil {
		return err
	}
	defer files.Close()
	s.kept = true
	for name, f := range files {
		if err := s.Holder.Keep(name, int(f.Fd())); err != nil {
			s.unkeep()
			return fmt.Errorf("give the holder %s: %w", name, err)
		}
	}
	return nil
}

// unkeep has the holder forget the mount: it ends with this process.
func (s *Server) unkeep() {
	if !s.kept {
		return
	}
	s.kept = false
	for _, name := range leftFiles {
		_ = s.Holder.Drop(name) // it may have died
	}
}

// resends says whether the kernel sends again what a server that died has not answered.
func (s *Server) resends() (ok bool, why string) {
	c, ours := s.fs.Connection()
	if !ours {
		return false, fs.ErrNotOurs.Error()
	}
	info, err := c.Info()
	switch {
	case err != nil:
		return false, err.Error()
	case !info.Resends:
		return false, fs.ErrLost.Error()
	}
	return true, ""
}

// survives says whether the mount survives the death of this server.
func (s *Server) survives() (ok bool, why string, takeovers int) {
	if c, ours := s.fs.Connection(); ours {
		if info, err := c.Info(); err == nil {
			takeovers = info.Takeovers
		}
	}
	switch ok, why = s.resends(); {
	case !ok:
	case !s.kept:
		ok, why = false, "nobody would start another server: use --daemon, or systemd"
	}
	return ok, why, takeovers
}

// checkTime bounds the check of a program that is to go on with the mount.
const checkTime = 10 * time.Second

// Upgrade has the program check whether it can go on with the mount, and then the server make room for it.
func (s verbs) Upgrade(ctx context.Context, program string) error {
	files, err := s.leaves()
	if err != nil {
		return exitcode.With(exitcode.Unsupported, err)
	}
	defer files.Close()
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, os.Args[1:]...)
	cmd.Env = append(os.Environ(), CheckEnv+"=1")
	process.Files{
		holder.DeviceFile: files[holder.DeviceFile], holder.LedgerFile: files[holder.LedgerFile],
	}.Give(cmd)
	if err := process.StartServer(ctx, cmd); err != nil {
		return fmt.Errorf("%s cannot go on with this mount: %w", program, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s cannot go on with this mount: %w", program, err)
	}
	select {
	case s.upgrade <- program:
		return nil
	default:
		return exitcode.Errorf(exitcode.Busy, "another upgrade is under way")
	}
}

// CheckEnv in its environment has a server only check whether it could take over.
const CheckEnv = "THAW_CHECK_TAKEOVER"

// Check says whether this program could go on with the mount that it was given.
func Check(o Options) error { return fs.CheckTakeOver(o.Connection(), o.FS) }

// drainTime bounds how long a server that lets go of its mount takes to answer what it has read. What it has
// not answered then is sent again.
const drainTime = 10 * time.Second

// handOver runs another program in this process, which goes on with the mount. If it cannot be run, this
// program goes on, from its start.
func (s *Server) handOver(program string) error {
	s.Note("thaw: %s goes on with %s", program, s.Mount)
	files, err := s.drain()
	if err != nil {
		return err
	}
	if s.Holder != nil && s.Holder.Ours {
		if err := s.Holder.Tell(holder.ProgramVar + "=" + program); err != nil {
			s.Log.Warn("after this server, the program before goes on", "err", err)
		}
		files[process.HolderFile] = s.Holder.File()
	}
	err = files.Exec(program, os.Args)
	s.Log.Error("this program goes on", "err", err)
	return files.Exec("/proc/self/exe", os.Args)
}

// letGo ends the server and leaves the mount to the next one, which the holder starts.
func (s *Server) letGo() error {
	if !s.kept {
		if err := s.give(); err != nil {
			return err
		}
	}
	s.Note("thaw: another server is to go on with %s", s.Mount)
	files, err := s.drain()
	if err != nil {
		return err
	}
	return files.Close()
}

// drain ends everything but the mount, and returns what the next server needs.
func (s *Server) drain() (process.Files, error) {
	files, err := s.leaves()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), sendPatience)
	defer cancel()
	s.listener.Leave()
	if err := s.control.Close(ctx); err != nil {
		s.Log.Warn("close the control socket", "err", err)
	}
	s.repacker.close()
	s.learner.close()
	for _, h := range s.http {
		if err := h.close(); err != nil {
			s.Log.Warn("close a listener", "err", err)
		}
	}
	if s.prober != nil {
		_ = s.prober.Close() // it has nothing to save
	}
	bound := context.Background()
	if ok, _ := s.resends(); ok {
		var cancel context.CancelFunc
		bound, cancel = context.WithTimeout(bound, drainTime)
		defer cancel()
	}
	if err := s.fs.Drain(bound); err != nil {
		s.Log.Warn("what is not answered is asked for again", "err", err)
	}
	return files, nil
}
