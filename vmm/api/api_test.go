package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errConflict = errors.New("not now")
	errFull     = errors.New("no room")
)

// fake is a machine that notes what is asked of it.
type fake struct {
	mu   sync.Mutex
	done []string
	err  error
}

func (f *fake) note(s string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, s)
	return f.err
}

func (f *fake) Status() (Status, error) {
	return Status{State: "running", Program: "idle", Done: 3}, nil
}
func (f *fake) Pause() error  { return f.note("pause") }
func (f *fake) Resume() error { return f.note("resume") }
func (f *fake) Stop()         { _ = f.note("stop") }
func (f *fake) Metrics() (Metrics, error) {
	return Metrics{Pauses: 2, VCPUs: []VCPUMetrics{{Exits: map[string]uint64{"KVM_EXIT_IO": 7}}}}, nil
}
func (f *fake) Kind(err error) ErrorKind {
	switch {
	case errors.Is(err, errConflict):
		return Conflict
	case errors.Is(err, errFull):
		return NoSpace
	}
	return Failed
}
func (f *fake) Checkpoint(_ context.Context, r CheckpointRequest) (CheckpointReply, error) {
	s := "checkpoint " + r.Dir
	if r.Stop {
		s += " and stop"
	}
	if r.Diff {
		s += ", differential"
	}
	return CheckpointReply{Dir: r.Dir, MemoryBytes: 4096}, f.note(s)
}

func start(t *testing.T, f *fake) (socket string, c *Client) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	s, err := Serve(socket, f, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket was left behind: %v", err)
		}
	})
	return socket, NewClient(socket)
}

func TestActions(t *testing.T) {
	f := &fake{}
	socket, c := start(t, f)
	ctx := t.Context()
	s, err := c.Status(ctx)
	if err != nil || s.Done != 3 || s.Program != "idle" {
		t.Errorf("status: %+v, %v", s, err)
	}
	for _, act := range []func(context.Context) (Status, error){c.Pause, c.Resume, c.Stop} {
		if s, err := act(ctx); err != nil || s.State != "running" {
			t.Errorf("%+v, %v", s, err)
		}
	}
	r, err := c.Checkpoint(ctx, CheckpointRequest{Dir: "/x/y", Stop: true})
	if err != nil || r.Dir != "/x/y" || r.MemoryBytes != 4096 {
		t.Errorf("checkpoint: %+v, %v", r, err)
	}
	var v Version
	_, body := request(t, socket, http.MethodGet, "/version", "")
	if err := json.Unmarshal(body, &v); err != nil || v.Name != "thaw" || v.API != APIVersion {
		t.Errorf("version: %+v, %v", v, err)
	}
	if m, err := c.Metrics(ctx); err != nil || m.Pauses != 2 || m.VCPUs[0].Exits["KVM_EXIT_IO"] != 7 {
		t.Errorf("metrics: %+v, %v", m, err)
	}
	if got := strings.Join(f.done, ", "); got != "pause, resume, stop, checkpoint /x/y and stop" {
		t.Error(got)
	}
}

// A relative directory is the client's, not the machine's.
func TestRelativeDirectory(t *testing.T) {
	f := &fake{}
	_, c := start(t, f)
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Checkpoint(t.Context(), CheckpointRequest{Dir: "one"})
	if err != nil || r.Dir != filepath.Join(wd, "one") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRefusals(t *testing.T) {
	f := &fake{err: errConflict}
	socket, c := start(t, f)
	var refused *RefusedError
	_, err := c.Pause(t.Context())
	if !errors.As(err, &refused) || refused.Code != http.StatusConflict {
		t.Errorf("conflict: %v", err)
	}
	f.err = errFull
	_, err = c.Checkpoint(t.Context(), CheckpointRequest{Dir: "/x", Diff: true})
	if !errors.As(err, &refused) || refused.Code != http.StatusInsufficientStorage ||
		f.done[len(f.done)-1] != "checkpoint /x, differential" {
		t.Errorf("full disk: %v", err)
	}
	f.err = errors.New("disk on fire")
	_, err = c.Resume(t.Context())
	if !errors.As(err, &refused) || refused.Code != http.StatusInternalServerError ||
		!strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("failure: %v", err)
	}
	for what, body := range map[string]string{"no JSON": "hello", "relative": `{"dir":"x"}`,
		"unknown field": `{"dir":"/x","sotp":true}`, "empty": "",
		"large": `{"dir":"/` + strings.Repeat("x", maxBody) + `"}`} {
		if code := post(t, socket, "/checkpoint", body); code != http.StatusBadRequest {
			t.Errorf("%s: status %d", what, code)
		}
	}
	for _, c := range []struct {
		method, path string
		code         int
		allow        string
	}{
		{http.MethodPost, "/status", http.StatusMethodNotAllowed, "GET"},
		{http.MethodGet, "/pause", http.StatusMethodNotAllowed, "POST, PUT"},
		{http.MethodDelete, "/", http.StatusMethodNotAllowed, "GET"},
		{http.MethodPost, "/nothing", http.StatusNotFound, ""},
		{http.MethodGet, "/status/", http.StatusNotFound, ""},
		{http.MethodPut, "/checkpoint", http.StatusBadRequest, ""},
		{http.MethodGet, "/", http.StatusOK, ""},
	} {
		resp, body := request(t, socket, c.method, c.path, "")
		if resp.StatusCode != c.code || resp.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %s, Allow %q", c.method, c.path, resp.Status, resp.Header.Get("Allow"))
		}
		var f failure
		if err := json.Unmarshal(body, &f); err != nil || (f.Message == "") != (c.code == 200) {
			t.Errorf("%s %s: %q, %v", c.method, c.path, body, err)
		}
	}
}

func post(t *testing.T, socket, path, body string) int {
	t.Helper()
	resp, _ := request(t, socket, http.MethodPost, path, body)
	return resp.StatusCode
}

func request(t *testing.T, socket, method, path, body string) (*http.Response, []byte) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", socket)
		}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://vm"+path,
		strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

func TestSocketFiles(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	socket, _ := start(t, &fake{})
	if _, err := Serve(socket, &fake{}, log); err == nil || !strings.Contains(err.Error(), "answers") {
		t.Errorf("a second machine on one socket: %v", err)
	}
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Serve(plain, &fake{}, log); err == nil {
		t.Error("a plain file was taken for a socket")
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", maxPath))
	_, err := Serve(long, &fake{}, log)
	if err == nil || !strings.Contains(err.Error(), "at most 107") {
		t.Errorf("a long path: %v", err)
	}
	// The socket of a machine that was killed.
	dead := filepath.Join(t.TempDir(), "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s, err := Serve(dead, &fake{}, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := NewClient(dead).Status(t.Context()); err == nil {
		t.Error("nobody answered")
	}
}
