package vcpu

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The clock of a thread that sleeps and works, inside of what stands for KVM_RUN and outside of it:
// only sleep inside is a stall.
func TestRunClock(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const nap = 2 * time.Millisecond
	sleep := func() time.Duration {
		begin := time.Now()
		ts := unix.NsecToTimespec(int64(nap))
		for unix.Nanosleep(&ts, &ts) != nil { // a signal of the runtime's
		}
		return time.Since(begin)
	}
	work := func() {
		for end := threadCPU(0) + nap; threadCPU(0) < end; {
		}
	}
	var c runClock
	if c.stalled() != 0 {
		t.Error("a thread that never ran stalled")
	}
	var inside time.Duration
	begin := time.Now()
	for range 30 {
		c.enter()
		inside += sleep()
		work()
		c.stalled() // as a sampler would
		c.leave()
		work()
		sleep()
		c.stalled()
	}
	wall, stalled := time.Since(begin), c.stalled()
	t.Logf("stalled %v; slept %v inside, %v in all", stalled, inside, wall)
	if stalled < 30*nap*98/100 || stalled > inside+wall/10 {
		t.Errorf("stalled %v, slept %v inside of it", stalled, inside)
	}
}
