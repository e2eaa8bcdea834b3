package server

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
