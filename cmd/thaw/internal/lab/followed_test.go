package lab

import (
	"testing"

	"github.com/thawfs/thaw/wss"
)

func TestTailCounts(t *testing.T) {
	for name, c := range map[string]struct {
		tail followed
		vmm  wss.Counts
		want wss.Counts
	}{
		"no tail": {followed{0, 30}, wss.Counts{Prefetched: 50, Skipped: 40, Lazy: 35},
			wss.Counts{Prefetched: 50, Skipped: 40, Lazy: 35}},
		"all in time": {followed{100, 5}, wss.Counts{Prefetched: 20, Skipped: 20, Lazy: 105},
			wss.Counts{Prefetched: 120, Skipped: 120, Lazy: 5}},
		"half of it used": {followed{100, 5}, wss.Counts{Prefetched: 20, Skipped: 20, Lazy: 55},
			wss.Counts{Prefetched: 120, Skipped: 70, Lazy: 5}},
		"neighbours": {followed{100, 5}, wss.Counts{Prefetched: 20, Skipped: 20, Lazy: 200},
			wss.Counts{Prefetched: 120, Skipped: 120, Lazy: 100}},
		"read before the machine ran": {followed{100, 500}, wss.Counts{Prefetched: 20, Skipped: 20, Lazy: 50},
			wss.Counts{Prefetched: 120, Skipped: 20, Lazy: 50}},
	} {
		if got := c.tail.add(c.vmm); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
