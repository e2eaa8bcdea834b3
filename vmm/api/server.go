package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// Server serves the API on a unix socket.
type Server struct {
	http   http.Server
	socket string
	done   chan error
}

// maxPath is the size of sun_path in struct sockaddr_un, less its final zero.
const maxPath = 107

// Serve starts to serve a machine on a socket. A socket file that no process listens on is replaced.
func Serve(socket string, m Machine, log *slog.Logger) (*Server, error) {
	if len(socket) > maxPath {
		return nil, fmt.Errorf("API socket: the path has %d bytes, and at most %d are possible", len(socket),
			maxPath)
	}
	if err := removeStale(socket); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	// A user who may write to the socket may also write the machine's memory to disk.
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("API socket: %w", err)
	}
	s := &Server{socket: socket, done: make(chan error, 1)}
	s.http = http.Server{Handler: newRouter(m, log), ReadHeaderTimeout: 10 * time.Second}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

// closeTime is how long Close waits for current requests.
const closeTime = 5 * time.Second

// Close waits a limited time for current requests, and removes the socket.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	if e := <-s.done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// removeStale removes the socket of a machine that was killed.
func removeStale(socket string) error {
	st, err := os.Lstat(socket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("API socket: %s exists and is not a socket", socket)
	}
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("API socket: a machine answers at %s already", socket)
	}
	return os.Remove(socket)
}
