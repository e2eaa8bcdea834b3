package fs

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Abort cuts the connection of the thaw mount on a path and takes the mount away, whatever uses it.
// Requests that wait for the server fail at once, and so do later ones that the page cache cannot
// answer. It works on mounts whose server hangs, because it does not ask the server. If the connection
// cannot be cut, the mount stays.
func Abort(path string) error {
	m, err := FindMount(path)
	if err != nil {
		return err
	}
	if err := cut(m); err != nil {
		return &MountPointError{path, "cannot be aborted", err}
	}
	if err := detach(m.Path); err != nil {
		return &MountPointError{path, "aborted, but not unmounted", err}
	}
	return nil
}

// cut cuts the connection of a mount: by the control file system where it is mounted, else by one
// that is attached nowhere, else by a forced unmount, which cuts it also when it then finds the
// mount busy.
func cut(m MountPoint) error {
	err := abortConnection(fusectl, m.Minor)
	if err == nil {
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.Join(err, errors.New(
			`let root do it, or have it "mount -t fusectl fusectl /sys/fs/fuse/connections"`))
	}
	own := abortByOwn(m.Minor)
	if own == nil {
		return nil
	}
	forced := unix.Unmount(m.Path, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
	if forced == nil || errors.Is(forced, unix.EBUSY) {
		return nil
	}
	return errors.Join(err, own, forced)
}

// fusectl is where the control file system of FUSE is mounted.
const fusectl = "/sys/fs/fuse/connections"

// abortConnection cuts a FUSE connection by its number, with the control file system on ctl.
func abortConnection(ctl string, minor uint32) error {
	name := filepath.Join(ctl, strconv.FormatUint(uint64(minor), 10), "abort")
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("1")
	return errors.Join(err, f.Close())
}

// abortByOwn is abortConnection with a control file system that has no place in the tree.
func abortByOwn(minor uint32) error {
	ctx, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(ctx)
	if err := unix.FsconfigCreate(ctx); err != nil {
		return os.NewSyscallError("fsconfig", err)
	}
	ctl, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(ctl)
	name := strconv.FormatUint(uint64(minor), 10) + "/abort"
	fd, err := unix.Openat(ctl, name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "openat", Path: "fusectl:" + name, Err: err}
	}
	_, err = unix.Write(fd, []byte("1"))
	return errors.Join(err, unix.Close(fd))
}
