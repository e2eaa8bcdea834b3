package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/proc"
	"github.com/thawfs/thaw/tests/internal/race"
)

// binary is the built command. Main sets it before any test runs; it does not change afterwards.
var binary string

// binaryEnv has the path of a thaw binary, for hosts of the tests that have no Go.
const binaryEnv = "THAW_TEST_BINARY"

// Main builds thaw, runs the tests and returns the status for os.Exit.
func Main(m *testing.M) int {
	if binary = os.Getenv(binaryEnv); binary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "thaw-cli")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Other users must be able to run it: some tests mount without root.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary = filepath.Join(dir, "thaw")
	args := []string{"build", "-o", binary}
	if race.Enabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "github.com/thawfs/thaw/cmd/thaw")...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build thaw:", err)
		return 1
	}
	return m.Run()
}

// Binary is the path of the built command.
func Binary() string { return binary }

// Result of one run of the command.
type Result struct {
	Args           []string
	Stdout, Stderr string
	Code           int
	Took           time.Duration
	CPU            time.Duration // user and system time of the process
}

func (r Result) String() string {
	return fmt.Sprintf("thaw %s: status %d\n%s%s", strings.Join(r.Args, " "), r.Code, r.Stdout,
		r.Stderr)
}

// limit is the time limit of one run. A command that takes longer is killed, and the test fails.
const limit = 3 * time.Minute

// Command makes a command with the arguments. The caller starts it and limits its time.
func Command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

// Run runs the command and returns its output and status.
func Run(t testing.TB, args ...string) Result {
	t.Helper()
	return RunCommand(t, Command(args...))
}

// RunCommand is Run for a prepared command, for example with the rights of another user.
func RunCommand(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	// Files and not pipes: a daemon that the command leaves behind would hold a pipe open.
	dir := t.TempDir()
	stdout, err := os.Create(filepath.Join(dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	stderr, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	start := time.Now()
	p, err := proc.Start(cmd)
	if err != nil {
		t.Fatalf("start %v: %v", cmd.Args, err)
	}
	err = p.Wait(limit)
	r := Result{Args: cmd.Args[1:], Took: time.Since(start), Code: -1}
	r.Stdout, r.Stderr = slurp(stdout.Name()), slurp(stderr.Name())
	var hang *proc.HangError
	if errors.As(err, &hang) {
		_ = p.Kill(5 * time.Second)
		t.Fatalf("%v\n%v", r, err)
	}
	r.Code = cmd.ProcessState.ExitCode()
	r.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if r.Code == 2 || strings.Contains(r.Stderr, "DATA RACE") {
		t.Errorf("thaw crashed: %v", r) // 2 is what the Go runtime ends with after a panic
	}
	return r
}

func slurp(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}

// OK runs the command and requires success.
func OK(t testing.TB, args ...string) Result {
	t.Helper()
	r := Run(t, args...)
	if r.Code != 0 {
		t.Fatal(r)
	}
	return r
}

// JSON runs the command with --json, requires success and decodes what it printed.
func JSON[T any](t testing.TB, args ...string) T {
	t.Helper()
	r := OK(t, append(args, "--json")...)
	var v T
	if err := json.Unmarshal([]byte(r.Stdout), &v); err != nil {
		t.Fatalf("%v\nno JSON: %v", r, err)
	}
	return v
}

// Fails runs the command and requires that it fails with the error of this name in `thaw help
// exit-codes`, and prints a message.
func Fails(t testing.TB, name string, args ...string) Result {
	t.Helper()
	r := Run(t, append(args, "--json")...)
	got := r.ErrorName()
	if r.Code == 0 || got != name {
		t.Errorf("want a failure %q, got %q: %v", name, got, r)
	}
	return r
}

// ErrorName is the name of the error that a run with --json printed.
func (r Result) ErrorName() string {
	lines := strings.Split(strings.TrimSpace(r.Stderr), "\n")
	var e struct{ Name, Message string }
	_ = json.Unmarshal([]byte(lines[len(lines)-1]), &e)
	if e.Message == "" {
		return ""
	}
	return e.Name
}

// Tool runs another program, such as fio, with a time limit, and returns its standard output.
func Tool(t testing.TB, within time.Duration, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var out, diag bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &diag
	p, err := proc.Start(cmd)
	if err != nil {
		return "", err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		err = errors.Join(context.Cause(ctx), p.Kill(5*time.Second))
		return out.String(), fmt.Errorf("%s: %w\n%s", name, err, diag.String())
	}
	if err := p.Err(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", name, err, diag.String())
	}
	return out.String(), nil
}
