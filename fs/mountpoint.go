package fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// fsType is what /proc/mounts shows of a thaw mount.
const fsType = "fuse.thaw"

// A MountError says why the kernel, or fusermount3, would not mount: it is no fault of the directory. What
// fusermount3 says of it is on the standard error output.
type MountError struct {
	Path string
	Err  error
}

func (e *MountError) Error() string {
	return "mount " + e.Path + ": " + strings.TrimSpace(e.Err.Error())
}

func (e *MountError) Unwrap() error { return e.Err }

// A MountPointError says why a directory cannot be mounted on, or is no mount of ours.
type MountPointError struct {
	Path string
	Why  string
	Err  error // may be nil
}

func (e *MountPointError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("mount point %s: %s: %v", e.Path, e.Why, e.Err)
	}
	return fmt.Sprintf("mount point %s: %s", e.Path, e.Why)
}

func (e *MountPointError) Unwrap() error { return e.Err }

// Sentinels of MountPointError.
var (
	ErrAlreadyMounted = errors.New("a thaw mount is there already")
	ErrNotMounted     = errors.New("no thaw mount is there")
	ErrNotEmpty       = errors.New("not empty")
	ErrNotDirectory   = errors.New("not a directory")
)

// MountPoints are the places of all thaw mounts in this namespace. No mount is asked.
func MountPoints() (all []string, err error) {
	table, err := readMounts(selfMounts)
	for _, m := range table {
		if m.fsType == fsType {
			all = append(all, m.mountPoint)
		}
	}
	return all, err
}

// checkMountPoint makes the path absolute and says whether it can be mounted on: it exists, is a
// directory, is empty, and no thaw mount is there, alive or dead. The table of mounts is asked
// first, because a look into a mount whose server hangs would hang as well.
func checkMountPoint(path string) (string, error) {
	bad := func(why string, err error) error { return &MountPointError{path, why, err} }
	table, err := readMounts(selfMounts)
	if err != nil {
		return "", bad("cannot be checked", err)
	}
	abs, err := resolve(path, table)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", bad("cannot be resolved", err)
	}
	if m := table.top(abs); m != nil && m.fsType == fsType {
		return "", bad("in use", ErrAlreadyMounted)
	}
	if m := table.around(abs); m != nil {
		return "", bad("lies in the mount "+m.mountPoint, ErrAlreadyMounted)
	}
	st, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", bad("does not exist", os.ErrNotExist)
	case err != nil:
		return "", bad("cannot be looked at", err)
	case !st.IsDir():
		return "", bad("cannot be mounted on", ErrNotDirectory)
	}
	dir, err := os.Open(abs)
	if err != nil {
		return "", bad("cannot be looked at", err)
	}
	defer dir.Close()
	if _, err := dir.Readdirnames(1); err == nil {
		return "", bad("would be hidden by the mount", ErrNotEmpty)
	} else if !errors.Is(err, io.EOF) {
		return "", bad("cannot be read", err)
	}
	return abs, nil
}

// A MountPoint is a thaw mount, as the table of mounts lists it.
type MountPoint struct {
	// Path is the mount point, absolute and without symbolic links.
	Path string
	// Minor is the minor number of its device, which is the number of its FUSE connection.
	Minor uint32
}

// FindMount returns the thaw mount on a path. Like all functions here that take the path of a mount, it
// reads only the table of mounts, so it works while the server hangs. The error is a MountPointError;
// it is ErrNotMounted if there is no mount.
func FindMount(path string) (MountPoint, error) {
	table, err := readMounts(selfMounts)
	if err != nil {
		return MountPoint{}, &MountPointError{path, "cannot be checked", err}
	}
	abs, err := resolve(path, table)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return MountPoint{}, &MountPointError{path, "cannot be resolved", err}
	}
	m := table.top(abs)
	if m == nil || m.fsType != fsType {
		return MountPoint{}, &MountPointError{path, "no mount point", ErrNotMounted}
	}
	return MountPoint{Path: m.mountPoint, Minor: m.minor}, nil
}

// A Location is where a path lies on a thaw mount.
type Location struct {
	// Path is absolute and, as far as it lies on no thaw mount, without symbolic links.
	Path string
	// Mount is where the root of the file system is mounted; empty if only a part of it is.
	Mount string
	// In is the path in the file system, "." for its root.
	In string
}

// Locate finds the thaw mount that a path lies on, itself or a bind mount of it; false if it lies on
// none. What lies in a mount is only a name here, and need not exist.
func Locate(path string) (l Location, on bool, err error) {
	table, err := readMounts(selfMounts)
	if err != nil {
		return l, false, fmt.Errorf("table of mounts: %w", err)
	}
	l.Path, err = resolve(path, table)
	if err != nil {
		return l, false, nil // it leads nowhere
	}
	m := table.top(l.Path)
	if m == nil {
		m = table.around(l.Path)
	}
	if m == nil || m.fsType != fsType {
		return l, false, nil
	}
	l.Mount = table.whole(m)
	l.In, err = filepath.Rel("/", filepath.Join(m.root, strings.TrimPrefix(l.Path, m.mountPoint)))
	return l, true, err
}

// maxLinks is how many symbolic links a path may lead through, as in the kernel.
const maxLinks = 40

// resolve makes a path absolute and free of symbolic links, as the table of mounts calls it. It
// does not look at mount points, which are not links, nor at anything in a thaw mount, whose server may
// hang. A path that does not exist is resolved as far as it
// goes, and the error says so.
func resolve(path string, table mountTable) (string, error) {
	at := "/"
	if !filepath.IsAbs(path) {
		// Not os.Getwd: that looks at the directory itself.
		wd, err := syscall.Getwd()
		if err != nil {
			return "", err
		}
		at = wd
	}
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		if table.top(next) != nil || table.around(next) != nil {
			at = next
			continue
		}
		target, err := os.Readlink(next)
		switch {
		case errors.Is(err, syscall.EINVAL): // no link
			at = next
		case err != nil:
			return filepath.Join(append([]string{next}, rest...)...), err
		default:
			if links++; links > maxLinks {
				return "", &os.PathError{Op: "resolve", Path: path, Err: syscall.ELOOP}
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
		}
	}
	return at, nil
}
