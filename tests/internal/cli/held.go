package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/proc"
)

// Held is a store that is mounted in the background: its server may be killed, and another one goes on.
type Held struct {
	Mounted
	holder int // its process
}

// MountHeld mounts a store on a new directory with --daemon. The test is skipped where no other server could
// go on.
func MountHeld(t testing.TB, store string, flags ...string) *Held {
	t.Helper()
	NeedFUSE(t)
	if os.Getuid() != 0 {
		t.Skip("needs root: another server gets its /dev/fuse")
	}
	h := &Held{Mounted: Mounted{Dir: filepath.Join(t.TempDir(), "mnt"), Store: store, t: t}}
	if err := os.Mkdir(h.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h.log = filepath.Join(t.TempDir(), "log")
	args := append([]string{"mount", store, h.Dir, "--daemon", "--takeover=auto", "--log-file",
		h.log, "--verbose"}, flags...)
	st := JSON[struct {
		PID int `json:"pid"`
	}](t, args...)
	t.Cleanup(h.cleanup)
	h.holder = parentOf(st.PID)
	if h.dev = deviceOf(h.Dir); h.dev == "" {
		t.Fatalf("nothing is mounted on %s\n%s", h.Dir, h.Log())
	}
	if strings.Contains(h.Log(), "its mount ends") {
		t.Skip("this kernel does not send requests again: Linux 6.9 does")
	}
	return h
}

// Pid is the process of the server; 0 if none has come for some time. What is read from the page cache needs
// no server, so that there may be none for a moment.
func (h *Held) Pid() int {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if pid := h.pidNow(); pid > 0 {
			return pid
		}
	}
	return 0
}

func (h *Held) pidNow() (pid int) {
	_, _ = fmt.Sscanf(slurp(filepath.Join(h.Store, "lock")), "pid %d ", &pid)
	if parentOf(pid) != h.holder {
		return 0
	}
	return pid
}

// Holder is the process that keeps the mount.
func (h *Held) Holder() int { return h.holder }

// KillServer kills the server with SIGKILL, if there is one just now, and does not wait for the next one.
func (h *Held) KillServer() bool {
	pid := h.Pid()
	return pid > 0 && syscall.Kill(pid, syscall.SIGKILL) == nil
}

// Ended waits until holder and server have ended.
func (h *Held) Ended(within time.Duration) {
	h.t.Helper()
	for deadline := time.Now().Add(within); parentOf(h.holder) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("the holder, process %d, has not ended after %v (%s)\n%s", h.holder, within,
				proc.State(h.holder), h.Log())
		}
	}
}

// cleanup takes the mount away, used or not, and waits for its processes.
func (h *Held) cleanup() {
	for i := 0; i < 8 && deviceOf(h.Dir) != ""; i++ {
		h.abort()
		if err := syscall.Unmount(h.Dir, syscall.MNT_DETACH); err != nil {
			h.t.Errorf("mount left on %s: %v", h.Dir, err)
		}
	}
	h.Ended(20 * time.Second)
	if log := h.Log(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
		h.t.Errorf("the server crashed:\n%s", log)
	}
}

// parentOf is the parent of a process; 0 if there is no such process, or if it is dead.
func parentOf(pid int) (parent int) {
	text := slurp(fmt.Sprintf("/proc/%d/stat", pid))
	var state string
	_, rest, _ := strings.Cut(text, ") ")
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil || state == "Z" || state == "X" {
		return 0
	}
	return parent
}
