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
		if os.Getenv(backgroundEnv) == "hurry" {
			fmt.Println(Hurry(os.Getpid()))
		}
		os.Exit(reportThreads())
	}
	if os.Getenv(filesTestEnv) != "" {
		os.Exit(filesMain())
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

// A process that is waited for is as any other one.
func TestHurry(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), backgroundEnv+"=hurry")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	if len(lines) < 3 {
		t.Fatalf("no threads\n%s", out)
	}
	if lines[1] != "<nil>" {
		t.Skipf("this host does not let it: %s", lines[1])
	}
	for _, line := range lines[2:] {
		if line != "thread false false" {
			t.Errorf("%s", line)
		}
	}
	if err := Hurry(1 << 30); err == nil {
		t.Error("there is no such process")
	}
}
