package disk

import (
	"testing"
	"time"
)

// TestSystemClock: a wait may end late on a busy host, but never much too early, whatever the clock
// has learnt, and time passes only forwards.
func TestSystemClock(t *testing.T) {
	for _, learnt := range []time.Duration{0, maxEarly, time.Hour} {
		c := new(systemClock)
		c.late.Store(int64(learnt))
		for _, d := range []time.Duration{-time.Hour, 0, 100 * time.Microsecond, 3 * ms} {
			before := c.Now()
			end := before + d
			c.Until(end)
			if now := c.Now(); now < before || now < end-maxEarly {
				t.Errorf("waited for %v: ended %v before the time", d, end-now)
			}
		}
	}
}
