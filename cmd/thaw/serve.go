package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/disk"
)

// How a server that is asked to end treats a mount in use.
const (
	busyPatience   = 3 * time.Second        // how long it waits before it detaches
	busyRetry      = 200 * time.Millisecond // between tries to unmount
	answerPatience = 10 * time.Second       // for answers on the control socket to be sent
)

// server is a mounted store: what the process of `thaw mount` holds. It is built in startServer
// from the store up and taken down in close from the mount down.
type server struct {
	a          *app
	store, mnt string
	policy     fs.Policy

	disk     *disk.Disk // that the packs are played to lie on; nil: where they are
	local    *localStore
	listener *control.Listener
	fs       *fs.Server
	control  *control.Server
	debug    *debugServer
	prober   *fs.ProcessProber // nil: the kernel cannot tell residency

	gone      chan struct{} // closed when the mount has ended, whoever ended it
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
	var wrap func(context.Context, blob.Store) (blob.Store, error)
	if !o.diskSpec.Native() {
		s.disk = disk.New(o.diskSpec)
		wrap = func(ctx context.Context, b blob.Store) (blob.Store, error) {
			return disk.Wrap(ctx, b, s.disk)
		}
	}
	if s.local, err = a.ownStore(ctx, store, wrap); err != nil {
		return nil, err
	}
	if s.listener, err = control.Listen(store); err != nil {
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
		ControlSocket: filepath.Join(store, control.SocketName),
	}
	if s.disk != nil {
		fo.Collectors = append(fo.Collectors, diskMetrics(s.disk)...)
	}
	if s.prober != nil {
		fo.Prober = s.prober
	}
	if s.fs, err = fs.Mount(ctx, fs.NewStore(s.local.store), mnt, fo); err != nil {
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

// ownStore opens a store for a server of its own. A store that has one already is an error that
// names it. wrap is put around its blobs; it may be nil.
func (a *app) ownStore(ctx context.Context, dir string,
	wrap func(context.Context, blob.Store) (blob.Store, error)) (*localStore, error) {
	s, err := a.openStore(ctx, dir, index.OpenOptions{Wrap: wrap})
	if err != nil {
		return nil, err
	}
	if remote, ok := s.(*remoteStore); ok {
		return nil, alreadyServed(ctx, dir, remote.client)
	}
	return s.(*localStore), nil
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

// unmount ends the mount; while it is in use it tells so, waits, then detaches it and serves what
// is open until it is closed. A signal on again ends it at once.
func (s *server) unmount(again <-chan os.Signal) error {
	deadline := time.Now().Add(busyPatience)
	for told := false; ; told = true {
		err := s.fs.Unmount(context.Background())
		if !errors.Is(err, fs.ErrBusy) {
			return err
		}
		if !told {
			s.a.note("thaw: %s is in use%s: trying again for %v", s.mnt, usedBy(s.mnt), busyPatience)
		}
		if time.Now().After(deadline) {
			return s.detach(again)
		}
		select {
		case <-s.gone:
			return nil
		case <-again:
			s.a.note("thaw: cutting off %s, in use%s", s.mnt, usedBy(s.mnt))
			return fs.Abort(s.mnt)
		case <-time.After(busyRetry):
		}
	}
}

// detach takes the mount out of the tree; the kernel keeps the connection for what is open.
func (s *server) detach(again <-chan os.Signal) error {
	s.a.note("thaw: %s is still in use%s: detached. What is open is served until it is closed; "+
		"signal process %d again to end it at once", s.mnt, usedBy(s.mnt), os.Getpid())
	if err := lazyUnmount(s.mnt); err != nil {
		return exitcode.With(exitcode.Mount, fmt.Errorf("detach %s: %w", s.mnt, err))
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

// close takes everything down that startServer built, in the reverse order; the store last, so
// that whoever opens it finds no socket of ours.
func (s *server) close() error {
	var errs []error
	if s.control != nil {
		ctx, cancel := context.WithTimeout(context.Background(), answerPatience)
		errs = append(errs, s.control.Close(ctx))
		cancel()
	}
	if s.listener != nil {
		_ = s.listener.Close() // says only that control.Close closed it already
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
	if s.local != nil {
		errs = append(errs, s.local.Close())
	}
	return errors.Join(errs...)
}
