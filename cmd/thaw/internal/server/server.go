package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/native"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/disk"
)

// Options say what is served, and how.
type Options struct {
	Store, Mount string     // absolute paths
	FS           fs.Options // what the server does not set itself
	Disk         disk.Spec  // the device that the packs are simulated to lie on
	Repack       Repacking  // of the store
	Version      string     // of this program

	MetricsListen string // address for metrics; "": none
	DebugListen   string // address for metrics and profiles; "": none

	// Given is what the server before has left, if this one is to go on with its mount; see TakesOver.
	Given  process.Files
	Holder *process.Holder // keeps the mount when this server dies; nil: nobody does
	Alone  bool            // the mount ends with this server all the same

	Log      *slog.Logger
	Note     func(format string, args ...any) // a message for people, one line
	Classify control.Classify
}

// Server is a mounted store.
type Server struct {
	Options

	kept     bool        // the holder has what another server needs
	upgrade  chan string // the program that is to go on with the mount
	disk     *disk.Disk  // nil: the packs are where they are
	reader   *index.Store
	lock     *index.ServerLock // nil: the store cannot be written to
	dir      string            // where the control socket is: the store, or a private directory
	listener *control.Listener
	fs       *fs.Server
	control  *control.Server
	http     []*httpServer
	prober   *fs.ProcessProber // nil: the kernel cannot tell residency
	late     lateProber        // the same, for a file system that was there before it
	repacker *repacker         // nil: the store is not repacked
	learner  *learner          // nil: nothing is learned

	gone      chan struct{} // closed when the mount has ended for any reason
	detached  atomic.Bool   // the mount is out of the tree, and served to the processes that still use it
	abandoned bool          // the process ends under a mount that is still in use
}

// Start opens the store, mounts it and answers on its control socket.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{Options: o, gone: make(chan struct{}), upgrade: make(chan string, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if o.TakesOver() {
		err = s.takeOver(ctx)
	} else {
		err = s.mount(ctx)
	}
	if err != nil {
		return nil, err
	}
	s.repacker = startRepacker(s)
	s.control = control.Serve(s.listener, control.Verbs(verbs{s}), o.Classify, o.Log)
	if err := s.startListeners(s.fs.Metrics()); err != nil && o.TakesOver() {
		o.Log.Error("the server goes on without metrics", "err", err)
	} else if err != nil {
		return nil, errors.Join(err, s.fs.Unmount(ctx))
	}
	s.keep()
	return s, nil
}

// mount mounts the store.
func (s *Server) mount(ctx context.Context) error {
	if err := s.openStore(ctx, s.adoptLock); err != nil {
		return err
	}
	if err := s.listen(); err != nil {
		return err
	}
	fo := s.fsOptions()
	if s.prober = startProber(ctx, s.Log); s.prober != nil {
		fo.Prober = s.prober
	}
	mounted, err := fs.Mount(ctx, fs.NewNamedStore(s.reader, native.Names), s.Mount, fo)
	if err != nil {
		return err
	}
	s.serves(mounted)
	return nil
}

// serves notes that the file system is served.
func (s *Server) serves(mounted *fs.Server) {
	s.fs = mounted
	go func() {
		s.fs.Wait()
		close(s.gone)
	}()
}

// fsOptions are those of the file system, but for the prober.
func (s *Server) fsOptions() fs.Options {
	o := s.FS
	o.Log, o.ControlSocket = s.Log, filepath.Join(s.dir, control.SocketName)
	o.Collectors = append(o.Collectors, buildMetric(s.Version))
	o.TakeOver = !s.Alone
	o.Source = s.Store // by which "mount -a" knows that it is mounted
	if s.disk != nil {
		o.Collectors = append(o.Collectors, DiskMetrics(s.disk)...)
	}
	if o.Learned != nil && s.lock == nil {
		s.Note("thaw: nothing is learned: store %s can only be read", s.Store)
		o.Learned = nil
	}
	if o.Learned != nil {
		s.learner = startLearner(s)
		o.Proved = s.learner.proved
	}
	return o
}

// openStore opens the store for reading and takes the lock of its server.
func (s *Server) openStore(ctx context.Context, lock func(context.Context) error) (err error) {
	o := index.OpenOptions{ReadOnly: true, Log: s.Log}
	if !s.Disk.Native() {
		s.disk = disk.New(s.Disk)
		o.Wrap = func(ctx context.Context, b blob.Store) (blob.Store, error) {
			return disk.Wrap(ctx, b, s.disk)
		}
	}
	if s.reader, err = index.Open(ctx, s.Store, o); err != nil {
		return err
	}
	return lock(ctx)
}

// takeLock takes the lock of the server. A store that cannot be written to, or has no room for the file, is
// served without a lock.
func (s *Server) takeLock(ctx context.Context) (err error) {
	s.lock, err = index.LockServer(s.Store, s.Mount)
	switch {
	case errors.Is(err, index.ErrLocked):
		return alreadyServed(ctx, s.Store, err)
	case errors.Is(err, index.ErrReadOnly):
		s.Note("thaw: store %s can only be read: %s", s.Store, access.Unwritable(s.Store))
		return nil
	case exitcode.IsFull(err):
		s.Note("thaw: store %s is served without a lock: %v", s.Store, err)
		return nil
	}
	return err
}

// alreadyServed is the error for a store that has a server.
func alreadyServed(ctx context.Context, store string, locked error) error {
	s, ok, err := index.ServerOf(store)
	if err != nil || !ok {
		return locked // it has just ended
	}
	switch st, _, err := access.ServerStatus(ctx, store); {
	case err != nil:
		return exitcode.WithHint(exitcode.Locked, fmt.Errorf("store %s is mounted on %s already, "+
			"by process %d, which does not answer: %w", store, s.Mount, s.PID, err), access.SilentHint(s))
	case st.Detached:
		return exitcode.WithHint(exitcode.Locked, fmt.Errorf("store %s was mounted on %s, and "+
			"process %d still serves what is in use%s", store, s.Mount, s.PID, access.UsedBy(st.Users)),
			"stop what uses it; "+control.GiveUpHint(s.Mount))
	}
	return exitcode.WithHint(exitcode.Locked,
		fmt.Errorf("store %s is mounted on %s already, by process %d", store, s.Mount, s.PID),
		"use that mount, or end it with: thaw umount "+s.Mount)
}

// listen makes the control socket: in the store, where this process is its server and there is room,
// else in a directory of its own.
func (s *Server) listen() (err error) {
	s.dir = s.Store
	if s.lock != nil {
		if s.listener, err = control.Listen(s.dir); err == nil || !exitcode.IsFull(err) {
			return err
		}
	}
	if s.dir, err = privateDir(s.Mount); err != nil {
		return err
	}
	s.listener, err = control.Listen(s.dir)
	return err
}

// ProberCommand is the name of the hidden command that a server starts as its residency prober.
const ProberCommand = "prober-of-a-server"

// startProber starts the prober; nil, with a word in the log, where the kernel cannot tell residency.
// It ends when it is closed, or with the server: its input ends then.
func startProber(ctx context.Context, log *slog.Logger) *fs.ProcessProber {
	p, err := fs.StartProber(context.WithoutCancel(ctx), "/proc/self/exe", ProberCommand)
	if err != nil {
		log.Info("second opens push again what should be cached", "why", err)
		return nil
	}
	return p
}

// sendPatience bounds how long answers on the control socket may take to be sent at the end.
const sendPatience = 10 * time.Second

// close takes everything down that Start built, in the reverse order; the store last, so that
// another server of this store finds no socket of ours.
func (s *Server) close() error {
	var errs []error
	s.unkeep()
	if s.control != nil {
		ctx, cancel := context.WithTimeout(context.Background(), sendPatience)
		errs = append(errs, s.control.Close(ctx))
		cancel()
	}
	if s.listener != nil {
		_ = s.listener.Close() // says only that control.Close closed it already
	}
	if s.dir != s.Store {
		_ = os.Remove(s.dir) // it stays where a log is in it
	}
	s.repacker.close()
	s.learner.close()
	if s.abandoned {
		return errors.Join(errs...)
	}
	if s.fs != nil {
		<-s.gone
	}
	for _, h := range s.http {
		errs = append(errs, h.close())
	}
	if s.prober != nil {
		errs = append(errs, s.prober.Close())
	}
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}
