package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/thawfs/thaw/fs"
)

// roleEnv makes the test binary a process of a testbed: server or machine.
const roleEnv = "THAW_TEST_LAB_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "" {
		if err := simulate(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// simulate is a server or a machine that does nothing until it is asked to end.
func simulate() error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	if _, err := os.NewFile(3, "ready pipe").WriteString("ready"); err != nil {
		return err
	}
	<-asked
	return nil
}

// simulated is a program whose processes do nothing. ready is called when a machine runs.
func simulated(t *testing.T, ready func()) Program {
	start := func(cmd *exec.Cmd, role string) *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		cmd.Env = append(os.Environ(), roleEnv+"="+role)
		cmd.ExtraFiles = []*os.File{w}
		return r
	}
	return Program{
		Command: func(args ...string) *exec.Cmd {
			cmd := exec.Command("/proc/self/exe")
			if args[0] == "vm" {
				r := start(cmd, "machine")
				go func() {
					if _, err := r.Read(make([]byte, 1)); err == nil {
						ready()
					}
				}()
			}
			return cmd
		},
		StartServer: func(_ context.Context, cmd *exec.Cmd) error {
			r := start(cmd, "server")
			if err := cmd.Start(); err != nil {
				return err
			}
			_, err := r.Read(make([]byte, 1))
			return err
		},
		Drop: func(context.Context, string, string) error { return nil },
		Note: t.Logf,
	}
}

// TestInterruptedRestore: the machine of a restore that is interrupted ends before the server of its memory,
// and both have ended when the restore returns. They are not asked to: that may take its time.
func TestInterruptedRestore(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bed := testbed{program: simulated(t, cancel)}
	if err := bed.create(filepath.Join(dir, "bed")); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(bed.mnt, plain)
	if err := os.Mkdir(image, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(image, "memory"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := bed.restore(ctx, trial{method: method{name: "lazy", policy: fs.PolicyLazy}, name: plain,
		disk: "native", window: time.Second})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("restore: %v", err)
	}
	for _, p := range bed.processes {
		select {
		case <-p.done:
		default:
			t.Fatalf("the %s runs on", p.name)
		}
		if p.cmd.ProcessState.Exited() {
			t.Errorf("the %s was asked to end: %v", p.name, p.cmd.ProcessState)
		}
	}
	if server, machine := bed.processes[0], bed.processes[1]; server.ended.Before(machine.ended) {
		t.Error("the server ended before the machine")
	}
	if err := bed.close(t.Context()); err != nil {
		t.Error(err)
	}
}
