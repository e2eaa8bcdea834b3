package perf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/proc"
)

// effort is what runs of a program took. Where others use the CPUs only its CPU time means something.
type effort struct {
	Wall, CPU time.Duration
	Peak      int64 // bytes of memory of its largest process
}

func (s *effort) add(o effort) {
	s.Wall, s.CPU, s.Peak = s.Wall+o.Wall, s.CPU+o.CPU, max(s.Peak, o.Peak)
}

func (s effort) String() string { return fmt.Sprintf("%.2f (%.2f)", s.Wall.Seconds(), s.CPU.Seconds()) }

// measureEnv makes this program run the command in its arguments, and write its effort to the file that
// the variable names. The kernel counts the memory of a process from the one that it was forked from: a
// test has much.
const measureEnv = "THAW_PERF_EFFORT"

// measureMainIfChild is that program.
func measureMainIfChild() {
	path := os.Getenv(measureEnv)
	if path == "" {
		return
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Env = append(os.Environ(), measureEnv+"=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	start := time.Now()
	p, err := proc.Start(cmd)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(127)
	}
	<-p.Done()
	state := cmd.ProcessState
	e := effort{Wall: time.Since(start), CPU: state.UserTime() + state.SystemTime()}
	if u, ok := state.SysUsage().(*syscall.Rusage); ok {
		e.Peak = u.Maxrss << 10
	}
	text, err := json.Marshal(e)
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(126)
	}
	if code := state.ExitCode(); code >= 0 {
		os.Exit(code)
	}
	os.Exit(125) // a signal
}

// spend runs a command to its end, which must be good, and gives it out to write to.
func spend(t *testing.T, cmd *exec.Cmd, within time.Duration, out io.Writer) (e effort) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "effort")
	run := exec.Command(self, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	if run.Env = cmd.Env; run.Env == nil {
		run.Env = os.Environ()
	}
	run.Env = append(run.Env, measureEnv+"="+path)
	var said bytes.Buffer
	run.Stdout, run.Stderr = out, &said
	p, err := proc.Start(run)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(within); err != nil {
		_ = p.Kill(10 * time.Second)
		t.Fatalf("%v: %v\n%s", cmd.Args, err, said.String())
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return e
}
