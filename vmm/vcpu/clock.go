package vcpu

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A vCPU stalls while its thread is inside of KVM_RUN, neither on a CPU nor waiting for one, and
// the guest has not halted: what it then waits for is a page.
//
//	stalled = wall time in KVM_RUN - CPU time in it - time in the run queue - halts
//
// Wall and CPU time are read at each entry and exit, by the thread's own CPU clock, which costs two
// system calls of some 0.2 us. The time in the run queue is in /proc/self/task/TID/schedstat; it is
// read when a sample is taken, and when the thread seems to have lost time between two entries.
// Halts are KVM's counter halt_wait_ns.
//
// What is counted besides pages is little: that a lock of the kernel is awaited, and that the Go
// runtime has no processor free for a thread that comes back from KVM_RUN. What is not counted:
// a guest with an interrupt controller is halted by KVM while a page is fetched for it
// (asynchronous page faults), and the counter does not tell these halts from its own; of such a
// guest the figure is a lower bound.
type runClock struct {
	mu  sync.Mutex // guards what follows
	tid int        // 0: it never ran

	in      bool
	at      time.Time     // of the last entry or exit
	cpuAt   time.Duration // CPU time then
	wall    time.Duration // in KVM_RUN, up to the last exit
	cpu     time.Duration
	queued  time.Duration // time in the run queue, when it was read last
	outside time.Duration // of it, before the first entry or between an exit and an entry
}

// lostTime is how long a thread may be off its CPU between two entries before somebody asks whether
// it waited for one.
const lostTime = 20 * time.Microsecond

// enter is called by the vCPU's thread before KVM_RUN, leave after it.
func (c *runClock) enter() {
	cpu := threadCPU(0)
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tid == 0 {
		c.tid = unix.Gettid()
		c.queued = queuedTime(c.tid)
		c.outside = c.queued
	} else if lost := now.Sub(c.at) - (cpu - c.cpuAt); lost > lostTime {
		queued := queuedTime(c.tid)
		c.outside += min(lost, queued-c.queued)
		c.queued = queued
	}
	c.in, c.at, c.cpuAt = true, now, cpu
}

func (c *runClock) leave() {
	now := time.Now()
	cpu := threadCPU(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += now.Sub(c.at)
	c.cpu += cpu - c.cpuAt
	c.in, c.at, c.cpuAt = false, now, cpu
}

// stalled is the sum so far, halts included. It may be too large by what is not accounted for yet,
// and be less the next time.
func (c *runClock) stalled() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tid == 0 {
		return 0
	}
	wall, cpu := c.wall, c.cpu
	if c.in {
		// The wall clock first: what passes between the two is then no stall.
		wall += time.Since(c.at)
		cpu += threadCPU(c.tid) - c.cpuAt
		c.queued = queuedTime(c.tid) // else the next entry reads it, and knows how much is from outside
	}
	return wall - cpu - (c.queued - c.outside)
}

// threadCPU is the CPU time of a thread of this process; 0 is the one that asks.
func threadCPU(tid int) time.Duration {
	clock := int32(unix.CLOCK_THREAD_CPUTIME_ID)
	if tid != 0 {
		clock = int32(^tid)<<3 | 6 // as pthread_getcpuclockid makes it
	}
	var ts unix.Timespec
	if unix.ClockGettime(clock, &ts) != nil {
		return 0 // the thread has ended, and with it what is measured
	}
	return time.Duration(ts.Nano())
}

// queuedTime is how long a thread has waited for a CPU. 0 on a kernel that does not tell.
func queuedTime(tid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", tid))
	var ran, queued time.Duration
	_, _ = fmt.Sscan(string(b), &ran, &queued)
	return queued
}
