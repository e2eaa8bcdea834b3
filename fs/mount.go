package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Mount serves a store on an empty directory, and returns when the mount can be used. As root it is
// a plain mount(2), otherwise fusermount3 does it, or Options.Mounter. It lasts until Unmount, or until
// somebody else unmounts it; store must stay open until Wait returns. ctx bounds the call, not the mount.
func Mount(ctx context.Context, store Store, mnt string, o Options) (*Server, error) {
	o = o.withDefaults(runtime.NumCPU())
	abs, err := checkMountPoint(mnt)
	if err != nil {
		return nil, err
	}
	s := newServer(ctx, store, abs, o)
	if err := s.Refresh(ctx); err != nil {
		s.close()
		return nil, err
	}
	if err := s.mount(ctx); err != nil {
		s.close()
		return nil, &MountError{abs, err}
	}
	s.serve()
	return s, nil
}

// serve begins to answer requests.
func (s *Server) serve() {
	for range max(s.opts.Workers, 2) {
		s.goes("pushing in the background", s.pushers.run)
	}
	// Not started by goes: close waits for its goroutines, and comes after Serve.
	go func() {
		s.fuse.Serve()
		if s.draining.Load() {
			s.ledger.setHead(func(h *ledgerHead) { h.Drained = true })
		}
		close(s.served)
		s.close()
	}()
}

// mountOptions are what go-fuse is told, and tells the kernel at INIT.
func (s *Server) mountOptions() *fuse.MountOptions {
	o := &fuse.MountOptions{
		AllowOther: s.opts.Rights.Shared(),
		FsName:     s.opts.Source,
		Name:       "thaw",
		// 4 KiB faults for every VMM, and still 128 KiB READs for large read(2)s. Never 0: that
		// would make all of them 4 KiB.
		MaxReadAhead:  s.opts.ReadAhead,
		MaxBackground: 64,
		// Only the server fills and drops the page cache.
		ExplicitDataCacheControl: true,
		DisableXAttrs:            !s.guard.lists(),
		EnableAcl:                s.guard.lists(),
		// Pages come out of decoders: there is no file to splice from.
		DisableSplice:        true,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		ExtraCapabilities:    fuse.CAP_HAS_RESEND,
		Logger:               slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	if s.opts.Rights.Shared() {
		o.Options = append(o.Options, optPermissions)
	}
	if s.opts.ReadOnly {
		o.Options = append(o.Options, "ro")
	}
	return o
}

// mount attaches to the kernel and answers its INIT.
func (s *Server) mount(ctx context.Context) error {
	before, err := readMounts(selfMounts)
	if err != nil {
		return err
	}
	fd, err := s.attached(ctx)
	if err != nil {
		return errors.Join(err, s.undoMount(before))
	}
	var g greeting
	var srv *fuse.Server
	switch {
	case fd < 0:
		srv, err = fuse.NewServer(s.raw(), s.mnt, s.mountOptions())
	case s.opts.TakeOver:
		srv, g, err = s.greet(fd)
	default:
		srv, err = fuse.NewServer(s.raw(), fmt.Sprintf("/dev/fd/%d", fd), s.mountOptions())
	}
	if err != nil {
		return errors.Join(err, s.undoMount(before))
	}
	if err := s.checkLists(srv); err != nil {
		uerr := s.undoMount(before)
		if uerr == nil {
			srv.Serve() // until it sees that the mount is gone
		}
		return errors.Join(err, uerr)
	}
	s.fuse = srv
	after, err := FindMount(s.mnt)
	s.minor = after.Minor
	if err == nil && g.reply != nil {
		s.beginLedger(g)
	}
	return err
}

func (s *Server) raw() *raw { return &raw{fuse.NewDefaultRawFileSystem(), s} }

// undoMount removes the mount that a failed call has left, and no other.
func (s *Server) undoMount(before mountTable) error {
	after, err := readMounts(selfMounts)
	if err != nil {
		return err
	}
	old, now := before.top(s.mnt), after.top(s.mnt)
	if now == nil || now.fsType != fsType || old != nil && old.id == now.id {
		return nil
	}
	return detach(s.mnt)
}

// optPermissions makes the kernel go by modes and owners.
const optPermissions = "default_permissions"

// attached mounts without fusermount3 where that is possible, and returns the device of the connection for
// go-fuse; -1 where it is not. go-fuse's own mount(2) would leave /dev/fuse open in every child process: a
// server that is killed would then leave a connection that nobody serves and nobody ends.
func (s *Server) attached(ctx context.Context) (fd int, err error) {
	switch {
	case s.opts.Mounter != nil:
		fd, err = s.opts.Mounter(ctx)
	case privileged():
		fd, err = MountFor(s.mnt, s.mounting())
	default:
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	// go-fuse closes its descriptor itself; this one is kept to push, and to mount again.
	if s.device, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// privileged says whether this process mounts and unmounts by itself.
func privileged() bool { return os.Geteuid() == 0 }

// A Mounting is how a connection is mounted.
type Mounting struct {
	// Server is who serves it.
	Server fuse.Owner
	// Shared: the kernel lets all users in as far as their permissions go (Rights), else only Server.
	Shared bool
	// ReadOnly and Source are those of Options.
	ReadOnly bool
	Source   string
}

// mounting is how the connection of s is mounted where it does that itself.
func (s *Server) mounting() Mounting {
	return Mounting{self(), s.opts.Rights.Shared(), s.opts.ReadOnly, s.opts.Source}
}

// MountFor mounts a connection that nobody serves yet, for a server that runs as a user, and returns its
// device.
func MountFor(at string, m Mounting) (device int, err error) {
	device, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/fuse: %w", err)
	}
	if err := attach(device, at, m); err != nil {
		unix.Close(device)
		return -1, err
	}
	return device, nil
}

// attach is mount(2) of a connection: for the first time, and again while anything uses its file
// system. ENOTCONN if nothing does any more.
func attach(device int, at string, m Mounting) error {
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d",
		device, m.Server.Uid, m.Server.Gid, 128<<10)
	if m.Shared {
		data += ",allow_other," + optPermissions
	}
	var flags uintptr = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(m.Source, at, fsType, flags, data); err != nil {
		return fmt.Errorf("mount(2): %w", err)
	}
	return nil
}
