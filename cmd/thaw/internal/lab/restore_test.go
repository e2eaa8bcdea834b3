package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/thawfs/thaw/fs"
)

// The environment that makes the test binary a process of a testbed.
const (
	roleEnv = "THAW_TEST_LAB_ROLE" // server or machine
	dirEnv  = "THAW_TEST_LAB_DIR"  // where it writes what it saw
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := simulate(role, os.Getenv(dirEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// simulate is a server or a machine that does nothing until it is asked to end. A server writes then
// whether the machine still runs.
func simulate(role, dir string) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	pidFile := filepath.Join(dir, "machine")
	if role == "machine" {
		if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			return err
		}
	}
	if _, err := os.NewFile(3, "ready pipe").WriteString("ready"); err != nil {
		return err
	}
	<-asked
	if role == "machine" {
		return nil
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return err
	}
	runs := syscall.Kill(pid, 0) == nil
	return os.WriteFile(filepath.Join(dir, "machine-runs"), []byte(strconv.FormatBool(runs)), 0o600)
}

// simulated is a program whose processes do nothing. ready is called when a machine runs.
func simulated(t *testing.T, dir string, ready func()) Program {
	start := func(cmd *exec.Cmd, role string) *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		cmd.Env = append(os.Environ(), roleEnv+"="+role, dirEnv+"="+dir)
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

// TestInterruptedRestore: the machine of a restore that is interrupted ends before the server of its
// memory is asked to.
func TestInterruptedRestore(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	bed := testbed{program: simulated(t, dir, cancel)}
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
	runs, err := os.ReadFile(filepath.Join(dir, "machine-runs"))
	if err != nil || string(runs) != "false" {
		t.Errorf("when the server was asked to end, the machine ran: %s, %v", runs, err)
	}
	if err := bed.close(); err != nil {
		t.Error(err)
	}
}
