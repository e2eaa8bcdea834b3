package server

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
)

// logFile is the name of a log in the store.
const logFile = "server.log"

// OpenLog opens the log of a background server: the file that was asked for, or one in the store, or,
// where that cannot be, one in a directory of the server's own.
func OpenLog(name, store, mnt string) (*os.File, error) {
	if name == "" {
		f, err := openLog(filepath.Join(store, logFile))
		if err == nil {
			return f, nil
		}
		f, perr := PrivateLog(name, store, mnt)
		if perr != nil {
			return nil, errors.Join(err, perr)
		}
		return f, nil
	}
	return openLog(name)
}

// PrivateLog is OpenLog for a sealed store, in which no log lies: it has names of checkpoints.
func PrivateLog(name, _, mnt string) (*os.File, error) {
	if name == "" {
		dir, err := privateDir(mnt)
		if err != nil {
			return nil, err
		}
		name = filepath.Join(dir, logFile)
	}
	return openLog(name)
}

func openLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// LogOf is OpenLog by root for a server that will be a user's, in whose directory the log may lie: a link is
// not followed, and what this user does not own is not written to.
func LogOf(u process.User) func(name, store, mnt string) (*os.File, error) {
	return func(name, store, _ string) (*os.File, error) {
		if name == "" {
			name = filepath.Join(store, logFile)
		}
		const flags = os.O_WRONLY | os.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK
		f, err := os.OpenFile(name, flags|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			return f, f.Chown(int(u.UID), int(u.GID))
		}
		if f, err = os.OpenFile(name, flags, 0); err != nil {
			return nil, exitcode.WithHint(exitcode.Failure, err, "give another place with --log-file")
		}
		var st unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &st)
		if err == nil && (st.Uid != u.UID || st.Mode&unix.S_IFMT != unix.S_IFREG) {
			err = exitcode.WithHint(exitcode.Failure, fmt.Errorf("%s is no file of user %s", name, u.Name),
				"give another place with --log-file")
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return f, nil
	}
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
