package vmm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/boot"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
)

// childEnv has the job of a test binary that was started as a child: a restore in a separate process,
// like a user's.
const childEnv = "THAW_VMM_TEST_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childEnv); job != "" {
		if err := child(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if job := os.Getenv(fuseEnv); job != "" {
		if err := serveFUSE(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if job := os.Getenv(stepEnv); job != "" {
		if err := stepChild(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// childJob is what a child is to do.
type childJob struct {
	Dir string
	API string
	For time.Duration
}

// childResult is what it prints.
type childResult struct {
	Report     *Report
	Err        string
	WrongByte  *WrongByteError
	MemoryLost *ram.LostError
}

func child(job string) error {
	var j childJob
	if err := json.Unmarshal([]byte(job), &j); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var res childResult
	rep, err := Restore(ctx, j.Dir, Config{API: j.API, For: j.For, Log: log})
	res.Report = rep
	if err != nil {
		res.Err = err.Error()
		errors.As(err, &res.WrongByte)
		if errors.As(err, &res.MemoryLost) {
			res.MemoryLost.Err = nil
		}
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

// restoreChild restores in another process and waits for its end. while, if given, is called while
// the machine runs.
func restoreChild(t *testing.T, j childJob, while func(*api.Client)) childResult {
	t.Helper()
	if while != nil {
		j.API = filepath.Join(t.TempDir(), "api")
	}
	job, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(job))
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if while != nil {
		c := api.NewClient(j.API)
		await(t, c, func(s api.Status) bool { return true })
		while(c)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("child: %v\n%s", err, errOut.String())
	}
	var res childResult
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		t.Fatalf("child: %v\n%s%s", err, out.String(), errOut.String())
	}
	return res
}

// await polls a machine until a condition holds.
func await(t *testing.T, c *api.Client, ok func(api.Status) bool) api.Status {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		s, err := c.Status(t.Context())
		if err == nil && ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("machine is not as wanted: %+v, %v", s, err)
		}
		time.Sleep(5 * time.Millisecond) // the interval of a poll
	}
}

func needKVM(t testing.TB) {
	t.Helper()
	s, err := kvm.Open()
	if errors.Is(err, kvm.ErrUnavailable) {
		t.Skipf("needs /dev/kvm: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func spec(program string, args ...string) guest.Spec {
	s := guest.Spec{Program: program}
	if len(args) > 0 {
		s.Args = map[string]string{}
	}
	for i := 0; i < len(args); i += 2 {
		s.Args[args[i]] = args[i+1]
	}
	return s
}

const testMemory = 32 << 20

// newTestMachine makes a machine that is closed at the end of the test.
func newTestMachine(t testing.TB, s guest.Spec, memory uint64) *Machine {
	t.Helper()
	needKVM(t)
	m, err := New(Config{Guest: s, MemoryBytes: memory, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// Start lets a paused machine run.
func (m *Machine) Start() error { return m.Resume() }

// runUntil lets a machine run until it has done a total number of units.
func runUntil(t testing.TB, m *Machine, units uint64) {
	t.Helper()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for m.ports.snapshot().Done < units {
		select {
		case <-m.ended:
			t.Fatalf("the machine ended: %v", m.Wait(context.Background()))
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the machine did not get to %d units in a minute", units)
		}
	}
}

// checkpointed runs a program for some units and returns a checkpoint of it.
func checkpointed(t testing.TB, s guest.Spec, memory, units uint64) string {
	t.Helper()
	m := newTestMachine(t, s, memory)
	runUntil(t, m, units)
	return checkpoint(t, m)
}

func checkpoint(t testing.TB, m *Machine) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "checkpoint")
	if _, err := m.Checkpoint(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tableBytes is the size of a guest program's page tables.
func tableBytes(regions []ram.Region) uint64 {
	return boot.GuestRAM(regions).First*pageSize - guest.Reserved
}

// loadDir loads a checkpoint as Restore does by default.
func loadDir(dir string, log *slog.Logger) (*loaded, error) {
	return load(dir, Config{Log: log})
}
