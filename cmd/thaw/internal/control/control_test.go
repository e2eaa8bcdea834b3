package control

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
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

func add(_ context.Context, r addRequest, progress func(Progress)) (any, error) {
	for i := range int64(3) {
		progress(Progress{Stage: "stage", Done: i + 1, Total: 3})
	}
	progress(Progress{Stage: "other", Done: 1})
	return r.A + r.B, nil
}

func TestCall(t *testing.T) {
	c := start(t, t.TempDir(), map[string]Handler{"add": Handle(add)})
	var sum int
	var got []Progress
	err := c.Call(t.Context(), "add", addRequest{2, 3}, &sum,
		func(p Progress) { got = append(got, p) })
	if err != nil || sum != 5 {
		t.Fatalf("add: %d, %v", sum, err)
	}
	// The middle of a stage may be left out; its beginning, its end and each stage are sent.
	want := []Progress{
		{Stage: "stage", Done: 1, Total: 3}, {Stage: "stage", Done: 3, Total: 3}, {Stage: "other",
			Done: 1},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestErrorsSurviveTheWire(t *testing.T) {
	c := start(t, t.TempDir(), map[string]Handler{
		"full": func(context.Context, json.RawMessage, func(Progress)) (any, error) {
			return nil, errors.Join(errors.New("import x"), errFull)
		},
		"dies": func(context.Context, json.RawMessage, func(Progress)) (any, error) {
			panic("boom")
		},
	})
	err := c.Call(t.Context(), "full", nil, nil, nil)
	code, hint, _ := exitcode.Of(err)
	if code != exitcode.NoSpace || hint != "free some space" || err.Error() != "import x\ndisk full" {
		t.Errorf("got %v (%v, %q)", err, code, hint)
	}
	if err := c.Call(t.Context(), "unknown", nil, nil, nil); !strings.Contains(err.Error(),
		"another version") {
		t.Errorf("unknown verb: %v", err)
	}
	if code, _, _ := exitcode.Of(c.Call(t.Context(), "dies", nil, nil,
		nil)); code != exitcode.ServerGone {
		t.Errorf("a handler that panics: %v", code)
	}
}

func TestCancelReachesTheWork(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 1)
	c := start(t, t.TempDir(), map[string]Handler{
		"wait": func(ctx context.Context, _ json.RawMessage, _ func(Progress)) (any, error) {
			close(begun)
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if err := c.Call(ctx, "wait", nil, nil, nil); !errors.Is(err, context.Canceled) {
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
		"wait": func(ctx context.Context, _ json.RawMessage, _ func(Progress)) (any, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}, testClassify, slog.New(slog.DiscardHandler))
	c, err := Connect(t.Context(), l.path)
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() { answer <- c.Call(context.Background(), "wait", nil, nil, nil) }()
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
	if err := c.Call(t.Context(), "add", addRequest{1, 1}, &sum, nil); err != nil || sum != 2 {
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
	if err := c.Call(t.Context(), "add", addRequest{20, 22}, &sum, nil); err != nil || sum != 42 {
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
