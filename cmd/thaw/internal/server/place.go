package server

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// OpenLog opens the log of a background server: the file that was asked for, or one in the store, or,
// where that cannot be, one in a directory of the server's own.
func OpenLog(name, store, mnt string) (*os.File, error) {
	const file, flags = "server.log", os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if name != "" {
		return os.OpenFile(name, flags, 0o600)
	}
	f, err := os.OpenFile(filepath.Join(store, file), flags, 0o600)
	if err == nil {
		return f, nil
	}
	dir, derr := privateDir(mnt)
	if derr != nil {
		return nil, errors.Join(err, derr)
	}
	return os.OpenFile(filepath.Join(dir, file), flags, 0o600)
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
				"set XDG_RUNTIME_DIR to a directory that is private")
		}
	}
	return dir, nil
}
