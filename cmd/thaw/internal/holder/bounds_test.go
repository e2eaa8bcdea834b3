package holder

import (
	"strings"
	"testing"
	"time"
)

// Whatever servers do, there is an end within a bounded time; and none as long as they serve.
func TestBounds(t *testing.T) {
	for name, c := range map[string]struct {
		life     end
		takes    time.Duration // from the start of a server to its end
		goesOn   bool
		atMost   time.Duration
		contains string
	}{
		"killed now and then": {
			life: end{ready: true, killed: true}, takes: 250 * time.Millisecond, goesOn: true,
		},
		"dies after an hour": {life: end{ready: true, lived: time.Hour}, takes: time.Hour, goesOn: true},
		"dies at its start":  {takes: 20 * time.Millisecond, atMost: 11 * time.Second, contains: "no server"},
		"dies soon": {
			life: end{ready: true, lived: 900 * time.Millisecond}, takes: 950 * time.Millisecond,
			atMost: 12 * time.Second, contains: "no server",
		},
		"killed at its start": {
			life: end{killed: true}, takes: 20 * time.Millisecond, atMost: 11 * time.Second, contains: "no server",
		},
		"killed by each request": {
			life: end{ready: true, killed: true}, takes: 50 * time.Millisecond, atMost: time.Minute,
			contains: "have died",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := bounds{patience: patience}
			begin := time.Unix(1e9, 0)
			now := begin
			for range 2000 {
				now = now.Add(c.takes)
				wait, why := b.died(c.life, now)
				if why != "" {
					if took := now.Sub(begin); c.goesOn || took > c.atMost || !strings.Contains(why, c.contains) {
						t.Errorf("after %v it gives up: %s", took, why)
					}
					return
				}
				if left := b.left(now); wait > left || left > patience {
					t.Fatalf("it waits for %v of %v", wait, left)
				}
				now = now.Add(wait)
			}
			if !c.goesOn {
				t.Error("there is no end")
			}
		})
	}
}

// A server that serves for a while gives the next one all the time again.
func TestBoundsBeginAnew(t *testing.T) {
	b := bounds{patience: patience}
	now := time.Unix(1e9, 0)
	for round := range 3 {
		if wait, why := b.died(end{ready: true, lived: time.Minute}, now); wait > 0 || why != "" {
			t.Errorf("round %d: %v, %s", round, wait, why)
		}
		for range 8 {
			now = now.Add(time.Second)
			if _, why := b.died(end{}, now); why != "" {
				t.Errorf("round %d: %s", round, why)
			}
		}
		now = now.Add(time.Minute)
	}
}
