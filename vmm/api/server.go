package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Server answers on a unix socket.
type Server struct {
	http   http.Server
	socket string
	done   chan error
}

// maxBody bounds what a client may send, in bytes.
const maxBody = 1 << 16

// maxPath is the size of sun_path in struct sockaddr_un, less its final zero.
const maxPath = 107

// Serve starts to answer for a machine. A socket file that nobody listens on any more is replaced.
func Serve(socket string, m Machine, log *slog.Logger) (*Server, error) {
	if len(socket) > maxPath {
		return nil, fmt.Errorf("API socket: a path of %d bytes, the kernel takes %d", len(socket),
			maxPath)
	}
	if err := removeStale(socket); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("API socket: %w", err)
	}
	// Whoever may write to the socket may write the machine's memory to disk.
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("API socket: %w", err)
	}
	s := &Server{socket: socket, done: make(chan error, 1)}
	s.http = http.Server{Handler: handler(m, log), ReadHeaderTimeout: 10 * time.Second}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

// closeTime is how long Close waits for requests under way.
const closeTime = 5 * time.Second

// Close lets the requests under way finish, within bounds, and removes the socket.
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
		return fmt.Errorf("API socket: %s exists and is no socket", socket)
	}
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("API socket: a machine answers at %s already", socket)
	}
	return os.Remove(socket)
}

func handler(m Machine, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, r *http.Request, v any, err error) {
		code := http.StatusOK
		if err != nil {
			log.Warn("API request failed", "request", r.URL.Path, "err", err)
			v, code = failure{err.Error()}, http.StatusInternalServerError
			if m.Conflict(err) {
				code = http.StatusConflict
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		// A client that is gone needs no answer.
		_ = json.NewEncoder(w).Encode(v)
	}
	then := func(act func() error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := act(); err != nil {
				reply(w, r, nil, err)
				return
			}
			st, err := m.Status()
			reply(w, r, st, err)
		}
	}
	mux.HandleFunc("GET /status", then(func() error { return nil }))
	mux.HandleFunc("POST /pause", then(m.Pause))
	mux.HandleFunc("POST /resume", then(m.Resume))
	mux.HandleFunc("POST /stop", then(func() error { m.Stop(); return nil }))
	mux.HandleFunc("POST /checkpoint", func(w http.ResponseWriter, r *http.Request) {
		var req CheckpointRequest
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
		d.DisallowUnknownFields()
		err := d.Decode(&req)
		if err == nil && !filepath.IsAbs(req.Dir) {
			err = fmt.Errorf("dir %q: an absolute path is needed", req.Dir)
		}
		if err != nil {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(failure{err.Error()})
			return
		}
		// Not the request's context: a client that goes away does not undo a checkpoint.
		rep, err := m.Checkpoint(context.WithoutCancel(r.Context()), req)
		reply(w, r, rep, err)
	})
	return mux
}
