package fs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fsType is what /proc/mounts shows of a thaw mount.
const fsType = "fuse.thaw"

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

// checkMountPoint makes the path absolute and says whether it can be mounted on: it exists, is a
// directory, is empty, and no thaw mount is there, alive or dead. The table of mounts is asked
// first, because a mount whose server hangs would hang us too.
func checkMountPoint(path string) (string, error) {
	bad := func(why string, err error) error { return &MountPointError{path, why, err} }
	abs, err := absolute(path)
	if err != nil {
		return "", bad("cannot be resolved", err)
	}
	if m, err := findMount(abs); err != nil {
		return "", bad("cannot be checked", err)
	} else if m != nil && m.fsType == fsType {
		return "", bad("in use", ErrAlreadyMounted)
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

// absolute resolves a path to what the table of mounts calls it: all but the last element, which
// may be a dead mount.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if abs == "/" {
		return abs, nil
	}
	if st, err := os.Lstat(abs); err == nil && st.Mode()&os.ModeSymlink != 0 {
		return filepath.EvalSymlinks(abs)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if errors.Is(err, os.ErrNotExist) {
		return abs, nil // said better by whoever looks at it
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// A mountInfo is a line of /proc/self/mountinfo.
type mountInfo struct {
	minor      uint32 // of the device: the number of a FUSE connection
	mountPoint string
	fsType     string
}

// findMount is the topmost mount on an absolute path; nil if there is none.
func findMount(path string) (*mountInfo, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found *mountInfo
	for line := range strings.Lines(string(text)) {
		if m, ok := parseMountInfo(line); ok && m.mountPoint == path {
			found = &m
		}
	}
	return found, nil
}

// parseMountInfo takes a line apart: "36 35 98:0 /root /mount/point options [tags] - type source
// …".
func parseMountInfo(line string) (m mountInfo, ok bool) {
	before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	if !ok {
		return m, false
	}
	left, right := strings.Fields(before), strings.Fields(after)
	if len(left) < 5 || len(right) < 1 {
		return m, false
	}
	_, minor, _ := strings.Cut(left[2], ":")
	n, err := strconv.ParseUint(minor, 10, 32)
	if err != nil {
		return m, false
	}
	return mountInfo{uint32(n), unescapeMount(left[4]), right[0]}, true
}

// unescapeMount undoes \040 and the like.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Abort cuts the connection of the thaw mount on a path and takes the mount away, whatever uses it:
// what waits for the server gets an error at once, and so does everything afterwards that is not
// in the page cache. For mounts whose server hangs.
func Abort(path string) error {
	abs, err := absolute(path)
	if err != nil {
		return &MountPointError{path, "cannot be resolved", err}
	}
	m, err := findMount(abs)
	if err != nil {
		return &MountPointError{path, "cannot be checked", err}
	}
	if m == nil || m.fsType != fsType {
		return &MountPointError{path, "nothing to abort", ErrNotMounted}
	}
	aborted := abortConnection(fusectl, m.minor)
	if aborted != nil {
		// The control file system may not be mounted; a forced unmount cuts the connection too,
		// also when it then finds the mount busy.
		if err := unix.Unmount(abs, unix.MNT_FORCE); err == nil {
			return nil
		} else if !errors.Is(err, unix.EBUSY) {
			return &MountPointError{path, "cannot be aborted", errors.Join(aborted, err)}
		}
	}
	if err := detach(abs); err != nil {
		return &MountPointError{path, "aborted, but not unmounted", err}
	}
	return nil
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
