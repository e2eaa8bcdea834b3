package disk

import (
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A clock is the time of a Disk. Tests have their own.
type clock interface {
	Now() time.Duration
	// Until returns at a time, or at once where that has passed.
	Until(t time.Duration)
}

// systemClock is CLOCK_MONOTONIC. It does not wait with time.Sleep, whose timers an idle process
// rounds to milliseconds, but sleeps in the kernel; a thread waits with each request then, as it
// does in a read from a real disk.
//
// A sleeper is woken some 60 us late, more on a busy host. The clock measures how late it was lately
// and wakes as much earlier, so that waits are right on average.
type systemClock struct {
	late atomic.Int64 // ns, a moving average
}

// maxEarly bounds how much too early a wait can end.
const maxEarly = 250 * time.Microsecond

// Now implements clock.
func (*systemClock) Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("disk: no monotonic clock: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// Until implements clock.
func (c *systemClock) Until(t time.Duration) {
	lately := c.late.Load()
	aim := t - min(time.Duration(lately), maxEarly)
	if aim <= c.Now() {
		return
	}
	ts := unix.NsecToTimespec(int64(aim))
	for {
		err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil)
		if !errors.Is(err, unix.EINTR) { // the runtime sends signals; the moment stays the same
			break
		}
	}
	// Two waits that end together may lose one of the updates: no harm. One very long delay says
	// little of the next.
	by := min(int64(c.Now()-aim), 4*int64(maxEarly))
	c.late.Store(lately + (by-lately)/16)
}
