package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var errNotDirectory error = unix.ENOTDIR

// lockStore takes the lock that one process at a time has. The kernel gives it back when the
// process dies, so it is never stale. The file says who has it, for the message of others.
func lockStore(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFileName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock store %s: %w", dir, err)
		}
		by := "another process"
		if who := strings.TrimSpace(string(holder)); who != "" {
			by = who
		}
		return nil, fmt.Errorf("%s: %w by %s; commands on a mounted store go through its server",
			dir, ErrLocked, by)
	}
	// Only a courtesy: on a full disk the lock must work without it.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "pid %d (%s)\n", os.Getpid(), filepath.Base(os.Args[0])), 0)
	}
	return f, nil
}
