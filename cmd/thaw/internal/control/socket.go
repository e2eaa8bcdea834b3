package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// SocketName is the name of the control socket in the store's directory.
const SocketName = "control.sock"

// maxPath is what sockaddr_un.sun_path holds beside its final NUL.
const maxPath = 107

// Listener listens on a socket, as the control socket of a store. Close removes the socket.
type Listener struct {
	*net.UnixListener
	dir *os.File // the directory: the socket's path may go through this descriptor
	// remove is the path of a socket that another process has made; "": it goes by itself, or stays.
	remove string
}

// Listen makes the control socket in the directory of a store. The caller holds the store's lock;
// a socket that is there already belongs to a dead server and is replaced. Only the user that runs
// the server may connect (mode 0600).
func Listen(dir string) (*Listener, error) {
	l, err := ListenAt(filepath.Join(dir, SocketName))
	if err != nil {
		return nil, fmt.Errorf("control socket in %s: %w", dir, err)
	}
	return l, nil
}

// ListenAt makes a socket at a path, whatever its length, in place of what is there. Only the user that runs
// this process may connect (mode 0600).
func ListenAt(name string) (*Listener, error) {
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	path := reach(d, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(err, d.Close())
	}
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	l := &Listener{u, d, ""}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Adopt goes on with the socket that another process has made at a path; f is it. Who has connected meanwhile
// is answered.
func Adopt(f *os.File, path string) (*Listener, error) {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	any, err := net.FileListener(f)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	u, ok := any.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s: %T is no such socket", path, any), any.Close(), d.Close())
	}
	return &Listener{u, d, reach(d, path)}, nil
}

// Leave has Close leave the socket in its place: another process goes on with it.
func (l *Listener) Leave() {
	l.SetUnlinkOnClose(false)
	l.remove = ""
}

// Close stops listening and removes the socket. That it is closed already is an error.
func (l *Listener) Close() error {
	err := l.UnixListener.Close()
	if err == nil && l.remove != "" {
		err = os.Remove(l.remove)
	}
	return errors.Join(err, l.dir.Close())
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
