package vcpu

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A vCPU stalls while its thread is inside KVM_RUN, is neither on a CPU nor waiting for one, and the
// guest has not halted: it then waits for a page.
//
//	stalled = wall time in KVM_RUN - CPU time in it - time in the run queue - halts
//
// Wall and CPU time are read at each entry and exit, the latter by the thread's own CPU clock: two
// system calls of about 0.2 us. The time in the run queue is in /proc/self/task/TID/schedstat. It is
// read for each sample, and when the thread seems to have lost time between two entries. Halts are
// KVM's counter halt_wait_ns.
//
// Two other waits are counted, too, which are short: for locks of the kernel, and for a free processor
// (P) of the Go runtime when the thread returns from KVM_RUN. Some waits for pages are not counted:
// with an interrupt controller KVM halts the guest while it fetches a page (asynchronous page faults),
// and the counter does not distinguish these halts from the guest's own. For such a guest the result is
// a lower bound.
type runClock struct {
	mu  sync.Mutex // guards what follows
	tid int        // 0: it never ran

	in      bool
	at      time.Time     // time of the last entry or exit
	cpuAt   time.Duration // CPU time at that moment
	wall    time.Duration // time in KVM_RUN, up to the last exit
	cpu     time.Duration
	queued  time.Duration // time in the run queue, as last read
	outside time.Duration // the part of queued outside of KVM_RUN
}

// lostTime is how long a thread may be off its CPU between two entries before its time in the run
// queue is read.
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

// stalled returns the stalled time so far, halts included. It may be too large, as some time is only
// accounted for later, and so it may decrease.
func (c *runClock) stalled() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tid == 0 {
		return 0
	}
	wall, cpu := c.wall, c.cpu
	if c.in {
		// The wall clock first, so that time between the two reads does not count as a stall.
		wall += time.Since(c.at)
		cpu += threadCPU(c.tid) - c.cpuAt
		c.queued = queuedTime(c.tid) // otherwise the next entry reads it, and knows which part is from outside
	}
	return wall - cpu - (c.queued - c.outside)
}

// threadCPU returns the CPU time of a thread of this process; 0: the calling thread.
func threadCPU(tid int) time.Duration {
	clock := int32(unix.CLOCK_THREAD_CPUTIME_ID)
	if tid != 0 {
		clock = int32(^tid)<<3 | 6 // as pthread_getcpuclockid makes it
	}
	var ts unix.Timespec
	if unix.ClockGettime(clock, &ts) != nil {
		return 0 // the thread has ended
	}
	return time.Duration(ts.Nano())
}

// queuedTime returns how long a thread has waited for a CPU; 0 if the kernel does not report it.
func queuedTime(tid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", tid))
	var ran, queued time.Duration
	_, _ = fmt.Sscan(string(b), &ran, &queued)
	return queued
}
