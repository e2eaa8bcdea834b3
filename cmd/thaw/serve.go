package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/disk"
)

// How a server that is asked to end treats a mount in use.
const (
	busyPatience = 3 * time.Second        // how long it waits before it detaches
	busyRetry    = 200 * time.Millisecond // between tries to unmount
	sendPatience = 10 * time.Second       // for answers on the control socket to be sent
)

// server is a mounted store: what the process of `thaw mount` holds. It only reads the store. It is
// built in startServer from the store up and taken down in close from the mount down.
type server struct {
	a          *app
	store, mnt string
	policy     fs.Policy

	disk     *disk.Disk // that the packs are simulated to lie on; nil: where they are
	reader   *index.Store
	lock     *index.ServerLock // nil: the store cannot be written to
	dir      string            // where the control socket is: the store, or a private directory
	listener *control.Listener
	fs       *fs.Server
	control  *control.Server
	debug    *debugServer
	prober   *fs.ProcessProber // nil: the kernel cannot tell residency

	gone      chan struct{} // closed when the mount has ended for any reason
	detached  atomic.Bool   // the mount is out of the tree, and served to those who still use it
	abandoned bool          // the process ends under a mount that is still in use
}

// startServer opens the store, mounts it and answers on its control socket.
func startServer(ctx context.Context, a *app, store, mnt string, o mountOptions) (_ *server,
	err error) {
	s := &server{a: a, store: store, mnt: mnt, policy: o.policy, gone: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.openStore(ctx, o.diskSpec); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	s.prober = startProber(ctx, a.log)
	fo := fs.Options{
		Policy:        o.policy,
		CapTime:       o.capTime,
		CapBytes:      int64(o.capBytes),
		RecordWindow:  o.recordWindow,
		Log:           a.log,
		AllowOther:    o.allowOther,
		NoPush:        o.noPush,
		ControlSocket: filepath.Join(s.dir, control.SocketName),
	}
	if s.disk != nil {
		fo.Collectors = append(fo.Collectors, diskMetrics(s.disk)...)
	}
	if s.prober != nil {
		fo.Prober = s.prober
	}
	if s.fs, err = fs.Mount(ctx, fs.NewStore(s.reader), mnt, fo); err != nil {
		return nil, err
	}
	go func() {
		s.fs.Wait()
		close(s.gone)
	}()
	s.control = control.Serve(s.listener, s.verbs(), classify, a.log)
	if s.debug, err = startDebug(a, o.debugListen, s.fs.Metrics()); err != nil {
		return nil, errors.Join(err, s.fs.Unmount(ctx))
	}
	return s, nil
}

// openStore opens the store for reading and takes the lock of its server. A store that cannot be
// written to, or has no room for the file, is served without a lock.
func (s *server) openStore(ctx context.Context, spec disk.Spec) (err error) {
	o := index.OpenOptions{ReadOnly: true, Log: s.a.log}
	if !spec.Native() {
		s.disk = disk.New(spec)
		o.Wrap = func(ctx context.Context, b blob.Store) (blob.Store, error) {
			return disk.Wrap(ctx, b, s.disk)
		}
	}
	if s.reader, err = index.Open(ctx, s.store, o); err != nil {
		return err
	}
	s.lock, err = index.LockServer(s.store, s.mnt)
	switch {
	case errors.Is(err, index.ErrLocked):
		return alreadyServed(ctx, s.store, err)
	case errors.Is(err, index.ErrReadOnly):
		s.a.note("thaw: store %s can only be read: %s", s.store, unwritable(s.store))
		return nil
	case isFull(err):
		s.a.note("thaw: store %s is served without a lock: %v", s.store, err)
		return nil
	}
	return err
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// listen makes the control socket: in the store, where this process is its server and there is room,
// else in a directory of its own.
func (s *server) listen() (err error) {
	s.dir = s.store
	if s.lock != nil {
		if s.listener, err = control.Listen(s.dir); err == nil || !isFull(err) {
			return err
		}
	}
	if s.dir, err = privateDir(s.mnt); err != nil {
		return err
	}
	s.listener, err = control.Listen(s.dir)
	return err
}

// privateDir is a directory of this user's, which nobody else can read, for what the server of a
// mount cannot put into its store.
func privateDir(mnt string) (string, error) {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = os.TempDir()
	}
	user := filepath.Join(base, fmt.Sprintf("thaw-%d", os.Geteuid()))
	sum := sha256.Sum256([]byte(mnt))
	dir := filepath.Join(user, fmt.Sprintf("%s-%.8x", filepath.Base(mnt), sum))
	for _, d := range []string{user, dir} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("directory for the control socket: %w", err)
		}
		// In a directory that all may write to somebody else may have been first.
		var st unix.Stat_t
		if err := unix.Lstat(d, &st); err != nil {
			return "", &os.PathError{Op: "stat", Path: d, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
			return "", exitcode.WithHint(exitcode.Failure,
				fmt.Errorf("%s is not a private directory of this user", d),
				"remove it, or set XDG_RUNTIME_DIR to a directory that is private")
		}
	}
	return dir, nil
}

// alreadyServed is the error for a store that has a server.
func alreadyServed(ctx context.Context, store string, locked error) error {
	s, ok, err := index.ServerOf(store)
	if err != nil || !ok {
		return locked // it has just ended
	}
	var st serverStatus
	c, err := storeServer(ctx, store)
	if c != nil {
		err = c.Call(ctx, verbStatus, struct{}{}, &st)
	}
	switch {
	case err != nil:
		return exitcode.WithHint(exitcode.Locked, fmt.Errorf("store %s is mounted on %s already, "+
			"by process %d, which does not answer: %w", store, s.Mount, s.PID, err), silentHint(s))
	case st.Detached:
		return exitcode.WithHint(exitcode.Locked, fmt.Errorf("store %s was mounted on %s, and "+
			"process %d still serves what is in use%s", store, s.Mount, s.PID, by(st.Users)),
			"stop what uses it; or cut it off: thaw umount --abort "+s.Mount)
	}
	return exitcode.WithHint(exitcode.Locked,
		fmt.Errorf("store %s is mounted on %s already, by process %d", store, s.Mount, s.PID),
		"use that mount, or end it with: thaw umount "+s.Mount)
}

// run serves until the mount ends: by umount, or because ctx ended (SIGTERM, SIGINT).
func (s *server) run(ctx context.Context) error {
	again, stop := shutdownSignals()
	defer stop()
	var err error
	select {
	case <-s.gone:
		s.a.note("thaw: %s was unmounted", s.mnt)
	case <-ctx.Done():
		select {
		case <-again: // the signal that ended ctx
		default:
		}
		if err := sdNotify("STOPPING=1"); err != nil {
			s.a.log.Warn("tell systemd", "err", err)
		}
		err = s.unmount(again)
	}
	return errors.Join(err, s.close())
}

// unmount ends the mount; while it is in use it says so, waits, then detaches it and serves what
// is open until it is closed. A signal on again ends it at once.
func (s *server) unmount(again <-chan os.Signal) error {
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
			s.a.note("thaw: %s is in use%s: trying again for %v", s.mnt, usersOf(err), busyPatience)
		}
		select {
		case <-s.gone:
			return nil
		case <-again:
			s.a.note("thaw: cutting off %s, in use%s", s.mnt, usersOf(err))
			return fs.Abort(s.mnt)
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
		return exitcode.Errorf(exitcode.Interrupted, "%s was cut off from what used it", s.mnt)
	}
}

// detach takes the mount out of the tree; the kernel keeps the connection for what is open.
func (s *server) detach(ctx context.Context) error {
	err := s.fs.Detach(ctx)
	if errors.Is(err, fs.ErrBusy) {
		s.detached.Store(true)
		s.a.note("thaw: %s is detached. It is in use%s and is served until all files are closed; "+
			"to end it at once: "+
			"thaw umount --abort %s", s.mnt, usersOf(err), s.mnt)
		return nil
	}
	if err != nil {
		return exitcode.With(exitcode.Mount, err)
	}
	return nil
}

// close takes everything down that startServer built, in the reverse order; the store last, so
// that whoever mounts it finds no socket of ours.
func (s *server) close() error {
	var errs []error
	if s.control != nil {
		ctx, cancel := context.WithTimeout(context.Background(), sendPatience)
		errs = append(errs, s.control.Close(ctx))
		cancel()
	}
	if s.listener != nil {
		_ = s.listener.Close() // says only that control.Close closed it already
	}
	if s.dir != s.store {
		_ = os.Remove(s.dir) // it stays where a log is in it
	}
	if s.abandoned {
		return errors.Join(errs...)
	}
	if s.fs != nil {
		<-s.gone
	}
	if s.debug != nil {
		errs = append(errs, s.debug.close())
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
