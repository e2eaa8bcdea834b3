package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// SocketName is the name of the control socket in the store's directory.
const SocketName = "control.sock"

// maxPath is what sockaddr_un.sun_path holds beside its final NUL.
const maxPath = 107

// Listener listens on the control socket of a store. Close removes the socket.
type Listener struct {
	net.Listener
	dir  *os.File // the store's directory: path may go through this descriptor
	path string
	once sync.Once
	err  error
}

// Listen makes the control socket in the directory of a store. The caller holds the store's lock;
// a socket that is there already belongs to a dead server and is replaced. Only the user that runs
// the server may connect (mode 0600).
func Listen(dir string) (*Listener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	path := reach(d, filepath.Join(dir, SocketName))
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.Close()
		return nil, fmt.Errorf("remove stale control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("control socket in %s: %w", dir, err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		d.Close()
		return nil, fmt.Errorf("control socket in %s: %w", dir, err)
	}
	return &Listener{Listener: l, dir: d, path: path}, nil
}

// Close stops listening and removes the socket.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.err = l.Listener.Close()
		if err := os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.err = errors.Join(l.err, err)
		}
		l.err = errors.Join(l.err, l.dir.Close())
	})
	return l.err
}

// reach returns a path of at most maxPath bytes to a file in the directory that d is.
func reach(d *os.File, path string) string {
	if len(path) <= maxPath {
		return path
	}
	fd := strconv.Itoa(int(d.Fd()))
	return filepath.Join("/proc/self/fd", fd, filepath.Base(path))
}

// ErrNoServer is returned by Dial where nobody listens: there is no socket, not even a directory
// for it, or a dead server left it behind.
var ErrNoServer = errors.New("no server")

// Dial connects to a control socket by its path, whatever its length.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, nobody(err)
	}
	defer d.Close()
	var nd net.Dialer
	conn, err := nd.DialContext(ctx, "unix", reach(d, path))
	if err != nil {
		return nil, nobody(err)
	}
	return conn, nil
}

// nobody makes errors which mean that nobody listens ErrNoServer.
func nobody(err error) error {
	for _, e := range []error{syscall.ENOENT, syscall.ENOTDIR, syscall.ECONNREFUSED} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrNoServer, err)
		}
	}
	return err
}
