package process

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Lasting prepares this process for being depended upon: it ends only when it is asked to. An error
// says why it is not spared when memory runs out.
func Lasting() error {
	ignoreSignals()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit())
	}
	return spareFromOOM()
}

// ignoreSignals ignores signals that would end or stop the process without need: SIGPIPE when the
// reader of its log has gone, SIGHUP when its terminal has, SIGXFSZ when its log has reached
// the limit of a file, job control, and those that are for others. The rest is not in our hands: the Go
// runtime keeps those of faults for itself (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGSTKFLT).
func ignoreSignals() {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGXFSZ, syscall.SIGTTIN,
		syscall.SIGTTOU, syscall.SIGTSTP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
		syscall.SIGVTALRM, syscall.SIGIO, syscall.SIGPWR, syscall.SIGABRT, syscall.SIGXCPU)
}

// spareScore makes the OOM killer choose this process late. -1000 would mean never, which only
// processes should have that the host cannot run without.
const spareScore = -900

// spareFromOOM asks the kernel to choose others first when memory runs out. It takes a privilege
// where the score was higher before.
func spareFromOOM() error {
	const file = "/proc/self/oom_score_adj"
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && now <= spareScore {
		return nil
	}
	return os.WriteFile(file, []byte(strconv.Itoa(spareScore)), 0)
}

// memoryLimit is where the garbage collector begins to work harder: a quarter of what the host, or
// the control group of this process, has. The rest is for the page cache, which serves the guests.
func memoryLimit() int64 {
	const least = 128 << 20
	total := int64(math.MaxInt64)
	var host unix.Sysinfo_t
	if err := unix.Sysinfo(&host); err == nil {
		total = int64(uint64(host.Totalram) * uint64(host.Unit))
	}
	if limit, err := cgroupLimit(); err == nil {
		total = min(total, limit)
	}
	return max(total/4, least)
}

// cgroupLimit is the memory.max of this process's control group.
func cgroupLimit() (int64, error) {
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, err
	}
	_, path, ok := bytes.Cut(self, []byte("0::"))
	if !ok {
		return 0, fmt.Errorf("no unified control group in %q", self)
	}
	path, _, _ = bytes.Cut(path, []byte("\n"))
	text, err := os.ReadFile("/sys/fs/cgroup" + string(path) + "/memory.max")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}
