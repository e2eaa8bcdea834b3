package holder

import (
	"fmt"
	"time"
)

const (
	// patience is how long the machines of a mount may wait for a server.
	patience = 10 * time.Second
	// soon is how long a server must live to have served.
	soon = time.Second
	// maxDeaths in deathsIn are too many, whatever they die of.
	maxDeaths = 300
	deathsIn  = time.Minute
	// firstWait and maxWait are between the death of a server that has not served and the next one.
	firstWait = 50 * time.Millisecond
	maxWait   = 800 * time.Millisecond
)

// bounds decide how long it goes on.
type bounds struct {
	patience time.Duration
	deaths   []time.Time // of the last minute
	since    time.Time   // when there was a server that served; zero: there is one, or was none yet
	wait     time.Duration
}

// left is how long the next server may take until it serves.
func (b *bounds) left(now time.Time) time.Duration {
	if b.since.IsZero() {
		return b.patience
	}
	return max(b.patience-now.Sub(b.since), 0)
}

// died notes the end of a server. It returns how long to wait before the next one, or why there is to be
// none.
func (b *bounds) died(e end, now time.Time) (wait time.Duration, why string) {
	b.deaths = append(b.deaths, now)
	for now.Sub(b.deaths[0]) > deathsIn {
		b.deaths = b.deaths[1:]
	}
	if len(b.deaths) > maxDeaths {
		return 0, fmt.Sprintf("%d servers have died in %v", len(b.deaths), deathsIn)
	}
	if e.served() || b.since.IsZero() {
		b.since, b.wait = now, 0
	}
	if e.served() {
		return 0, ""
	}
	if b.left(now) == 0 {
		return 0, fmt.Sprintf("for %v no server has come to serve it", b.patience)
	}
	b.wait = min(max(2*b.wait, firstWait), maxWait)
	return min(b.wait, b.left(now)), ""
}
