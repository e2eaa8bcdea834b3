package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"

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
		return nil, fmt.Errorf("mount %s: %w", abs, err)
	}
	for range max(o.Workers, 2) {
		s.goes(s.pushers.run)
	}
	// Not by goes: close waits for that, and comes after Serve.
	go func() {
		s.fuse.Serve()
		s.close()
	}()
	return s, nil
}

// mount attaches to the kernel and answers its INIT.
func (s *Server) mount() error {
	o := &fuse.MountOptions{
		AllowOther: s.opts.AllowOther,
		FsName:     "thaw",
		Name:       "thaw",
		// 4 KiB faults for every VMM, and still 128 KiB READs for large read(2)s. Never 0: that
		// would make all of them 4 KiB.
		MaxReadAhead:  s.opts.ReadAhead,
		MaxBackground: 64,
		// The page cache is ours to fill and to drop.
		ExplicitDataCacheControl: true,
		DisableXAttrs:            true,
		// Pages come out of decoders: there is no file to splice from.
		DisableSplice:        true,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		ExtraCapabilities:    fuse.CAP_HAS_RESEND,
		Logger:               slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	target := s.mnt
	if s.direct = os.Geteuid() == 0; s.direct {
		fd, err := mountDirect(s.mnt, s.opts.AllowOther)
		if err != nil {
			return err
		}
		target = fmt.Sprintf("/dev/fd/%d", fd)
	}
	srv, err := fuse.NewServer(&raw{fuse.NewDefaultRawFileSystem(), s}, target, o)
	if err != nil {
		detach(s.mnt)
		return err
	}
	s.fuse = srv
	return nil
}

// mountDirect is mount(2). go-fuse's own would leave /dev/fuse open in every child process: a
// server that is killed would then leave a connection that nobody serves and nobody ends.
func mountDirect(mnt string, allowOther bool) (fd int, err error) {
	fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/fuse: %w", err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d",
		fd, os.Geteuid(), os.Getegid(), 128<<10)
	if allowOther {
		data += ",allow_other"
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if err := unix.Mount("thaw", mnt, fsType, flags, data); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mount(2): %w", err)
	}
	return fd, nil
}

// Unmount takes the mount away and waits until everything that served it has ended. ErrBusy if
// somebody uses it. ctx bounds the wait.
func (s *Server) Unmount(ctx context.Context) error {
	err := s.unmount()
	select {
	case <-s.done: // somebody else was faster
		return nil
	default:
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount %s: %w", s.mnt, ErrBusy)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", s.mnt, err)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("unmount %s: %w", s.mnt, ctx.Err())
	}
}

func (s *Server) unmount() error {
	if s.direct {
		return unix.Unmount(s.mnt, unix.UMOUNT_NOFOLLOW)
	}
	return fusermount("-u", s.mnt)
}

// detach takes a mount away though it is in use; users keep what they have open.
func detach(mnt string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(mnt, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	return fusermount("-u", "-z", mnt)
}

// fusermount runs the helper that may unmount for other users than root.
func fusermount(args ...string) error {
	bin, err := exec.LookPath("fusermount3")
	if err != nil {
		return fmt.Errorf("fusermount3 (package fuse3) is needed without root: %w", err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(bin, append(args[:len(args)-1:len(args)-1], "--", args[len(args)-1])...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(stderr.String())
		if strings.Contains(text, "busy") {
			err = unix.EBUSY
		}
		return fmt.Errorf("fusermount3: %s: %w", text, err)
	}
	return nil
}
