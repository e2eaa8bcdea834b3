package fs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// TakeAway removes the mount at a path without its server, which ends when nothing uses the file system any
// more: for root, whom the kernel does not let into the mount of another user. An InUseError if it is in
// use; with detached it is removed all the same.
func TakeAway(path string, detached bool) error {
	m, err := FindMount(path)
	if err != nil {
		return err
	}
	flags := unix.UMOUNT_NOFOLLOW
	if detached {
		flags |= unix.MNT_DETACH
	}
	err = unix.Unmount(m.Path, flags)
	if errors.Is(err, unix.EBUSY) {
		users, _ := usersOf(m) // for a message only
		return &InUseError{Path: m.Path, Users: users}
	}
	if err != nil {
		return &MountPointError{path, "cannot be unmounted", err}
	}
	return nil
}
