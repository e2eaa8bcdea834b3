package process

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const backgroundEnv = "THAW_TEST_BACKGROUND"

func TestMain(m *testing.M) {
	if os.Getenv(backgroundEnv) != "" {
		fmt.Println(Background())
		os.Exit(reportThreads())
	}
	os.Exit(m.Run())
}

// reportThreads prints the scheduling policy of each thread.
func reportThreads() int {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 1
	}
	for _, t := range tasks {
		var tid int
		if _, err := fmt.Sscan(t.Name(), &tid); err != nil {
			return 1
		}
		a, err := unix.SchedGetAttr(tid, 0)
		if err != nil {
			return 1
		}
		prio, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioProcess, uintptr(tid), 0)
		fmt.Println("thread", a.Policy == unix.SCHED_IDLE, prio == ioprioIdle)
	}
	return 0
}

// Every thread of the process yields the processor and the disk.
func TestBackground(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), backgroundEnv+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	if lines[0] != "<nil>" {
		t.Skipf("this host does not let it: %s", lines[0])
	}
	if len(lines) < 2 {
		t.Error("no threads")
	}
	for _, line := range lines[1:] {
		if line != "thread true true" {
			t.Errorf("%s", line)
		}
	}
}
