package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// repackerEnv names a file, which makes the test binary a repacker that writes what it hears.
const repackerEnv = "THAW_TEST_REPACKER"

func TestMain(m *testing.M) {
	if path := os.Getenv(repackerEnv); path != "" {
		os.Exit(hearing(path))
	}
	os.Exit(m.Run())
}

// hearing says that a pack is done, and writes each line that it is told into a file until there are no more.
func hearing(path string) int {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 1
	}
	defer f.Close()
	fmt.Println(RepackedLine, 10, 5)
	fmt.Fprintln(f, "begun")
	lines := bufio.NewScanner(os.Stdin)
	for len(os.Args) == 1 && lines.Scan() {
		fmt.Fprintln(f, lines.Text())
	}
	fmt.Fprintln(f, "ended")
	if len(os.Args) > 1 {
		code, _ := strconv.Atoi(os.Args[1])
		return code
	}
	return 0
}

// testRepacker is a repacker whose process only listens.
type testRepacker struct {
	*repacker
	t         *testing.T
	path      string
	reads     atomic.Uint64
	busy      atomic.Bool
	refreshed atomic.Int64
	idled     atomic.Int64
}

func newTestRepacker(t *testing.T) *testRepacker {
	r := &testRepacker{t: t, path: filepath.Join(t.TempDir(), "heard")}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(repackerEnv, r.path)
	r.repacker = &repacker{
		command: func() *exec.Cmd { return exec.Command(exe) },
		demand:  func() (uint64, bool) { return r.reads.Load(), r.busy.Load() },
		refresh: func(context.Context) { r.refreshed.Add(1) },
		idle:    func() { r.idled.Add(1) },
		waited:  func(int) bool { return false },
		hurry:   func(int) error { return nil },
		log:     slog.New(slog.DiscardHandler),
	}
	return r
}

// await waits until the process has heard this.
func (r *testRepacker) await(want string) {
	r.t.Helper()
	var got []byte
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if got, _ = os.ReadFile(r.path); strings.ReplaceAll(string(got), "\n", ",") == want {
			return
		}
	}
	r.t.Fatalf("it heard %q, want %q", got, want)
}

// The process waits while something is asked for: a READ that is outstanding, a restore, or READs that are
// answered between two looks. It ends with the server.
func TestRepackerWaitsForDemand(t *testing.T) {
	r := newTestRepacker(t)
	r.start()
	defer r.close()
	r.await("begun,")
	r.busy.Store(true)
	r.await("begun,pause,")
	r.busy.Store(false)
	r.await("begun,pause,go on,")
	r.reads.Add(1)
	r.await("begun,pause,go on,pause,")
	r.await("begun,pause,go on,pause,go on,")
	r.close()
	r.await("begun,pause,go on,pause,go on,ended,")
	if r.refreshed.Load() != 1 {
		t.Errorf("the server has looked %d times", r.refreshed.Load())
	}
}

// It begins when nothing was asked for for some time, and again only when the store has changed.
func TestRepackerBegins(t *testing.T) {
	r := newTestRepacker(t)
	r.after = 4 * repackLook
	r.busy.Store(true)
	var looks sync.WaitGroup
	looks.Add(20)
	left := 20 // of the goroutine that looks
	r.demand = func() (uint64, bool) {
		if left > 0 {
			left--
			looks.Done()
		}
		return 0, r.busy.Load()
	}
	exe := r.command().Path
	r.command = func() *exec.Cmd { return exec.Command(exe, "once") }
	r.start()
	defer r.close()
	looks.Wait()
	if _, err := os.Stat(r.path); err == nil {
		t.Error("it runs although something is asked for")
	}
	r.busy.Store(false)
	r.await("begun,ended,")
	r.change()
	r.change()
	r.await("begun,ended,begun,ended,")
	r.close()
	if r.idled.Load() == 0 {
		t.Error("nothing was let go of")
	}
}

// One that does not give the store to another process, because it is stopped, is killed.
func TestRepackerKillsOneThatKeepsTheStore(t *testing.T) {
	r := newTestRepacker(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stopped := false
	r.waited = func(pid int) bool {
		if !stopped {
			stopped = syscall.Kill(pid, syscall.SIGSTOP) == nil
		}
		return true
	}
	hurried := 0
	r.hurry = func(int) error {
		hurried++
		return errors.New("not permitted")
	}
	err := r.once(ctx)
	if hurried != 1 {
		t.Errorf("it was hurried %d times", hurried)
	}
	var e *exec.ExitError
	if !errors.As(err, &e) || e.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
	if lasting(err) {
		t.Error("it would not be tried again")
	}
}

// What is damaged stays damaged until the store changes: it is not looked for again and again.
func TestRepackerLeavesDamage(t *testing.T) {
	r := newTestRepacker(t)
	exe := r.command().Path
	for code, want := range map[exitcode.Code]bool{
		exitcode.Failure: false, exitcode.NoSpace: false, exitcode.Corrupt: true, exitcode.Damaged: true,
		exitcode.Version: true,
	} {
		r.command = func() *exec.Cmd { return exec.Command(exe, strconv.Itoa(int(code))) }
		if err := r.once(t.Context()); err == nil || lasting(err) != want {
			t.Errorf("%s: %v, want %v", code.Name(), err, want)
		}
	}
}

// closing tells that it was closed.
type closing struct {
	io.WriteCloser
	once   sync.Once
	closed chan struct{}
}

func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.WriteCloser.Close()
}

// A process that hears nothing, with a full pipe, does not keep the server from its end.
func TestRepackerThatHearsNothing(t *testing.T) {
	r := newTestRepacker(t)
	r.busy.Store(true)
	hears, w := io.Pipe()
	defer hears.Close()
	in := &closing{WriteCloser: w, closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	over, steered := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(steered)
		r.steer(ctx, &exec.Cmd{Process: &os.Process{}}, in, over)
	}()
	if _, err := hears.Read(make([]byte, 1)); err != nil { // it is told something, and takes no more of it
		t.Fatal(err)
	}
	cancel()
	select {
	case <-in.closed:
	case <-time.After(time.Minute):
		t.Error("the server goes on writing")
		hears.Close()
	}
	close(over)
	<-steered
}
