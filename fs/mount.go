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
// a plain mount(2), otherwise fusermount3 does it. It lasts until Unmount, or until somebody else
// unmounts it; store must stay open until Wait returns. ctx bounds the call, not the mount.
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
	if err := s.mount(); err != nil {
		s.close()
		return nil, &MountError{abs, err}
	}
	for range max(o.Workers, 2) {
		s.goes("pushing in the background", s.pushers.run)
	}
	// Not started by goes: close waits for its goroutines, and comes after Serve.
	go func() {
		s.fuse.Serve()
		close(s.served)
		s.close()
	}()
	return s, nil
}

// mount attaches to the kernel and answers its INIT.
func (s *Server) mount() error {
	o := &fuse.MountOptions{
		AllowOther: s.opts.AllowOther,
		FsName:     s.opts.Source,
		Name:       "thaw",
		// 4 KiB faults for every VMM, and still 128 KiB READs for large read(2)s. Never 0: that
		// would make all of them 4 KiB.
		MaxReadAhead:  s.opts.ReadAhead,
		MaxBackground: 64,
		// Only the server fills and drops the page cache.
		ExplicitDataCacheControl: true,
		DisableXAttrs:            true,
		// Pages come out of decoders: there is no file to splice from.
		DisableSplice:        true,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		ExtraCapabilities:    fuse.CAP_HAS_RESEND,
		Logger:               slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	if s.opts.AllowOther {
		o.Options = append(o.Options, optPermissions)
	}
	if s.opts.ReadOnly {
		o.Options = append(o.Options, "ro")
	}
	before, err := readMounts(selfMounts)
	if err != nil {
		return err
	}
	target := s.mnt
	if os.Geteuid() == 0 {
		fd, err := s.mountDirect()
		if err != nil {
			return err
		}
		target = fmt.Sprintf("/dev/fd/%d", fd)
	}
	srv, err := fuse.NewServer(&raw{fuse.NewDefaultRawFileSystem(), s}, target, o)
	if err != nil {
		return errors.Join(err, s.undoMount(before))
	}
	s.fuse = srv
	after, err := FindMount(s.mnt)
	s.minor = after.Minor
	return err
}

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

// mountDirect is mount(2). go-fuse's own would leave /dev/fuse open in every child process: a
// server that is killed would then leave a connection that nobody serves and nobody ends.
func (s *Server) mountDirect() (fd int, err error) {
	fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/fuse: %w", err)
	}
	// go-fuse closes its descriptor itself; this one is kept to mount again.
	if s.device, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		err = s.attach(s.mnt)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// attach is mount(2) of the connection: for the first time, and again while anything uses its file
// system. ENOTCONN if nothing does any more.
func (s *Server) attach(at string) error {
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d",
		s.device, os.Geteuid(), os.Getegid(), 128<<10)
	if s.opts.AllowOther {
		data += ",allow_other," + optPermissions
	}
	var flags uintptr = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if s.opts.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(s.opts.Source, at, fsType, flags, data); err != nil {
		return fmt.Errorf("mount(2): %w", err)
	}
	return nil
}
