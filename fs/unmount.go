package fs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// endTime is how long the kernel may take to end a connection that nothing uses any more.
const endTime = time.Second

// Unmount takes the mount away and waits until everything that served it has ended. An InUseError
// if somebody uses it; then the mount stays in its place. Some uses are visible only after the unmount:
// an overlay, a bind mount, another mount namespace. Then it is mounted again, which needs root
// (InUseError.Gone). ctx bounds the wait.
func (s *Server) Unmount(ctx context.Context) error {
	at, err := s.place()
	if err == nil {
		err = s.unmount(at)
	}
	switch {
	case s.over(): // somebody else has unmounted it
		return s.waitDone(ctx)
	case errors.Is(err, unix.EBUSY):
		return s.inUse(false)
	case err != nil && !s.endsSoon(ctx): // it may have been somebody else just now
		return fmt.Errorf("unmount %s: %w", cmp.Or(at, s.mnt), err)
	}
	if !s.endsSoon(ctx) && !errors.Is(s.attachAgain(at), unix.ENOTCONN) {
		_, err := FindMount(at)
		return s.inUse(err != nil)
	}
	return s.waitDone(ctx)
}

// attachAgain mounts the connection again. ENOTCONN: it has ended.
func (s *Server) attachAgain(at string) error {
	if s.device < 0 || !privileged() {
		return unix.EPERM
	}
	return attach(s.device, at, s.mounting())
}

// Detach removes every mount of the file system in this namespace, though it is in use. The server ends
// when the last user is gone; an InUseError names the users that are left.
func (s *Server) Detach(ctx context.Context) error {
	table, err := readMounts(selfMounts)
	if err != nil {
		return fmt.Errorf("detach %s: %w", s.mnt, err)
	}
	mounts := table.of(s.minor)
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := detach(mounts[i].mountPoint); err != nil {
			return fmt.Errorf("detach %s: %w", mounts[i].mountPoint, err)
		}
	}
	if !s.endsSoon(ctx) {
		return s.inUse(true)
	}
	return s.waitDone(ctx)
}

// Users lists what uses the file system besides the mount itself.
func (s *Server) Users() ([]User, error) { return usersOf(MountPoint{s.lastPlace(), s.minor}) }

// lastPlace is where the mount is, or where it was made if it is not in the tree or is covered.
func (s *Server) lastPlace() string {
	at, err := s.place()
	if err != nil {
		return s.mnt
	}
	return at
}

// inUse returns an InUseError with the users of the mount.
func (s *Server) inUse(gone bool) error {
	users, err := s.Users()
	if err != nil {
		s.warn("the users of the mount cannot be listed", "err", err)
	}
	return &InUseError{Path: s.lastPlace(), Users: users, Gone: gone}
}

// over says whether the kernel has ended the connection.
func (s *Server) over() bool {
	select {
	case <-s.served:
		return true
	default:
		return false
	}
}

// endsSoon waits a little for the end of the connection.
func (s *Server) endsSoon(ctx context.Context) bool {
	t := time.NewTimer(endTime)
	defer t.Stop()
	select {
	case <-s.served:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return s.over()
}

// waitDone is Wait with a bound.
func (s *Server) waitDone(ctx context.Context) error {
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("unmount %s: %w", s.mnt, ctx.Err())
	}
}

func (s *Server) unmount(at string) error {
	if privileged() {
		return unix.Unmount(at, unix.UMOUNT_NOFOLLOW)
	}
	return fusermount("-u", at)
}

// place is where the mount is now: a directory above it may have been renamed. Of several mounts of the
// file system it is the one that this server made, if that can be told by its path, or else the oldest.
func (s *Server) place() (string, error) {
	table, err := readMounts(selfMounts)
	if err != nil {
		return "", err
	}
	at := ""
	for _, m := range table.of(s.minor) {
		if m.root == "/" && (at == "" || m.mountPoint == s.mnt) {
			at = m.mountPoint
		}
	}
	if at == "" {
		return "", unix.EINVAL // as umount(2) says where nothing is mounted
	}
	if top := table.top(at); top.minor != s.minor || top.fsType != fsType {
		return "", fmt.Errorf("another file system (%s) is mounted over it: unmount that first", top.fsType)
	}
	return at, nil
}

// detach removes a mount though it is in use; users keep what they have open.
func detach(mnt string) error {
	if privileged() {
		return unix.Unmount(mnt, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	return fusermount("-u", "-z", mnt)
}

// fusermountTime bounds the helper. It looks at directories above the mount, which may hang.
const fusermountTime = 10 * time.Second

// fusermount runs the helper that may unmount for other users than root.
func fusermount(args ...string) error {
	bin, err := exec.LookPath("fusermount3")
	if err != nil {
		return fmt.Errorf("fusermount3 (package fuse3) is needed without root: %w", err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(bin, append(args[:len(args)-1:len(args)-1], "--", args[len(args)-1])...)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("fusermount3: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // nobody waits if not even SIGKILL ends the helper
	select {
	case err = <-ended:
	case <-time.After(fusermountTime):
		cmd.Process.Kill()
		return fmt.Errorf("fusermount3 %s did not end within %v", args[len(args)-1], fusermountTime)
	}
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(stderr.String())
	if strings.Contains(text, "busy") {
		err = unix.EBUSY
	}
	return fmt.Errorf("fusermount3: %s: %w", text, err)
}
