package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFull = errors.New("disk full")

func testClassify(err error) (exitcode.Code, string) {
	if errors.Is(err, errFull) {
		return exitcode.NoSpace, "free some space"
	}
	return exitcode.Failure, ""
}

// start serves verbs in dir and returns a client of it.
func start(t *testing.T, dir string, verbs map[string]Handler) *Client {
	t.Helper()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(l, verbs, testClassify, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		_ = l.Close() // http.Server closed it before
		if _, err := os.Lstat(filepath.Join(dir, SocketName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	c, err := Connect(t.Context(), filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type addRequest struct{ A, B int }

func add(_ context.Context, r addRequest) (any, error) { return r.A + r.B, nil }

func TestCall(t *testing.T) {
	c := start(t, t.TempDir(), map[string]Handler{"add": Handle(add)})
	var sum int
	if err := c.Call(t.Context(), "add", addRequest{2, 3}, &sum); err != nil || sum != 5 {
		t.Fatalf("add: %d, %v", sum, err)
	}
}

func TestErrorsSurviveTheWire(t *testing.T) {
	c := start(t, t.TempDir(), map[string]Handler{
		"full": func(context.Context, json.RawMessage) (any, error) {
			return nil, errors.Join(errors.New("import x"), errFull)
		},
		"dies": func(context.Context, json.RawMessage) (any, error) {
			panic("boom")
		},
	})
	err := c.Call(t.Context(), "full", nil, nil)
	code, hint, _ := exitcode.Of(err)
	if code != exitcode.NoSpace || hint != "free some space" || err.Error() != "import x\ndisk full" {
		t.Errorf("got %v (%v, %q)", err, code, hint)
	}
	if err := c.Call(t.Context(), "unknown", nil, nil); !strings.Contains(err.Error(),
		"another version") {
		t.Errorf("unknown verb: %v", err)
	}
	// The server lives on: machines run from it.
	for range 2 {
		if err := c.Call(t.Context(), "dies", nil, nil); !strings.Contains(err.Error(), "boom") {
			t.Errorf("a handler that panics: %v", err)
		}
	}
}

// The server knows requests by the ID of the command that makes them, and by one of its own where that has
// none, or one that a log could not have.
func TestRequestIDs(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	asked := make(chan string, 1)
	s := Serve(l, map[string]Handler{
		"fails": func(ctx context.Context, _ json.RawMessage) (any, error) {
			asked <- Request(ctx)
			return nil, errFull
		},
	}, testClassify, slog.New(slog.NewTextHandler(&log, nil)))
	c, err := Connect(t.Context(), filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{NewRequest(), "", "two\nlines"}
	if ids[0] == NewRequest() {
		t.Error("two commands have one ID")
	}
	var known []string
	for i, id := range ids {
		ctx := t.Context()
		if id != "" {
			ctx = WithRequest(ctx, id)
		}
		err := c.Call(ctx, "fails", nil, nil)
		refused, ok := errors.AsType[*RequestError](err)
		if i == 2 { // net/http sends no such header
			if ok {
				t.Errorf("%q went over the wire: %v", id, err)
			}
			continue
		}
		seen := <-asked
		if !ok || refused.Request != seen || (id != "") != (seen == id) {
			t.Errorf("%q: the server knows it by %q, the error by %v", id, seen, refused)
		}
		known = append(known, seen)
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/fails", strings.NewReader("{}"))
	r.Header.Set(requestHeader, "forged level=ERROR")
	s.http.Handler.ServeHTTP(httptest.NewRecorder(), r)
	if seen := <-asked; !requestID.MatchString(seen) {
		t.Errorf("the server takes %q for an ID", seen)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	_ = l.Close()
	for _, id := range known {
		if n := strings.Count(log.String(), "request="+id+" verb=fails"); n != 1 {
			t.Errorf("%d lines with %s in the log:\n%s", n, id, log.String())
		}
	}
}

func TestCancelReachesTheWork(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 1)
	c := start(t, t.TempDir(), map[string]Handler{
		"wait": func(ctx context.Context, _ json.RawMessage) (any, error) {
			close(begun)
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if err := c.Call(ctx, "wait", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("client: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("server: %v", err)
	}
}

func TestCloseCancelsTheWork(t *testing.T) {
	l, err := Listen(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{})
	s := Serve(l, map[string]Handler{
		"wait": func(ctx context.Context, _ json.RawMessage) (any, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}, testClassify, slog.New(slog.DiscardHandler))
	c, err := Connect(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() { answer <- c.Call(context.Background(), "wait", nil, nil) }()
	<-begun
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	_ = l.Close()
	if err := <-answer; err == nil || err.Error() != context.Canceled.Error() {
		t.Errorf("client: %v", err)
	}
}

func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	if _, err := Connect(t.Context(), path); !errors.Is(err, ErrNoServer) {
		t.Errorf("no socket: %v", err)
	}
	// What kill -9 leaves behind: a bound socket that nobody listens on.
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	syscall.Close(fd)
	if _, err := Connect(t.Context(), path); !errors.Is(err, ErrNoServer) {
		t.Errorf("stale socket: %v", err)
	}
	c := start(t, dir, map[string]Handler{"add": Handle(add)})
	var sum int
	if err := c.Call(t.Context(), "add", addRequest{1, 1}, &sum); err != nil || sum != 2 {
		t.Errorf("after a stale socket: %d, %v", sum, err)
	}
}

func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120), strings.Repeat("e", 120))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := start(t, dir, map[string]Handler{"add": Handle(add)})
	var sum int
	if err := c.Call(t.Context(), "add", addRequest{20, 22}, &sum); err != nil || sum != 42 {
		t.Errorf("long path: %d, %v", sum, err)
	}
	st, err := os.Stat(filepath.Join(dir, SocketName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket mode: %v, %v", st.Mode(), err)
	}
	if _, err := (&net.Dialer{}).DialContext(t.Context(), "unix",
		filepath.Join(dir, SocketName)); err == nil {
		t.Error("the path is not too long after all: the test shows nothing")
	}
}

func TestSilentServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	l, err := net.Listen("unix", path) // and nobody accepts, as in a stopped process
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := connect(t.Context(), path, limits{begin: time.Minute, end: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	c.http.Transport.(*http.Transport).ResponseHeaderTimeout = time.Millisecond
	err = c.Call(t.Context(), "add", addRequest{}, nil)
	if code, hint, _ := exitcode.Of(err); !errors.Is(err, ErrSilent) || code != exitcode.ServerGone ||
		!strings.Contains(hint, "--abort") {
		t.Errorf("no answer begins: %v, %v, %q", err, code, hint)
	}
	stuck := start(t, t.TempDir(), map[string]Handler{
		"wait": func(ctx context.Context, _ json.RawMessage) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	stuck.limit.end = 10 * time.Millisecond
	if err := stuck.Call(t.Context(), "wait", nil, nil); !errors.Is(err, ErrSilent) {
		t.Errorf("no answer ends: %v", err)
	}
}
