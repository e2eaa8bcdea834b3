package lab

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/meter"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/report"
)

// TestOutcome: what the VMM and the server saw of a restore, on one clock.
func TestOutcome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stats.json")
	requested := time.Date(2026, 11, 22, 12, 0, 1, 0, time.UTC)
	text := `{"name": "x", "playout": {"head_start_seconds": 0.01, "margin": 1.5, "late_pages": 2,
 "rate_bytes_per_second": 3e8, "planned_slack_seconds": 0.1, "real_slack_seconds": -0.002,
 "late_seconds_max": 0.002, "late_seconds_total": 0.003}, "stalls": {"origin": "2026-11-22T12:00:00Z",
 "elapsed_seconds": 9, "requests": 2, "stall_seconds": 0.0102, "longest_seconds": 0.0101,
 "longest_at_seconds": 2.5, "buckets_us": [[2000000, 250, 100], [2500000, 250, 250]]}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	seen, err := readStats(path)
	if err != nil {
		t.Fatal(err)
	}
	rep := &vmm.Report{RunSeconds: 2, Progress: meter.Progress{Units: "frames", SliceSeconds: 0.1,
		Slices: []uint64{3}, Marks: [][2]uint64{{1, 50}, {3, 90_000}}},
		Restore: &vmm.Restored{FirstInstructionSeconds: 0.5,
			Counts: &wss.Counts{Window: 2001 * time.Millisecond}}}
	m := newOutcome("trace", rep, seen, requested).method
	if d := cmp.Diff([]report.Mark{{Units: 1, At: 50 * time.Microsecond},
		{Units: 3, At: 90 * time.Millisecond}}, m.Pace.Marks); d != "" {
		t.Error(d)
	}
	planned, behind := 0.1, -0.002
	want := &report.Playout{HeadStart: 0.01, Margin: 1.5, Rate: 3e8, PlannedSlack: &planned,
		RealSlack: &behind, LatePages: 2, LateMax: 0.002, LateTotal: 0.003}
	if d := cmp.Diff(want, m.Playout); d != "" {
		t.Error(d)
	}
	// Both stalls lie after the first instruction at 1.5 s of the server's clock.
	if m.Longest != 10100*time.Microsecond || m.TotalStall() != 350*time.Microsecond {
		t.Errorf("longest %v, in all %v", m.Longest, m.TotalStall())
	}
	// Where the longest one began before the guest did, the buckets tell.
	rep.Restore.FirstInstructionSeconds = 1.6
	if m := newOutcome("trace", rep, seen, requested).method; m.Longest != 0 || m.LongestStall() != 0 {
		t.Errorf("a stall before the first instruction: %v", m.LongestStall())
	}
}

// TestCountPlayout: of a set that came while the guest ran, what came in time counts as prefetched.
func TestCountPlayout(t *testing.T) {
	const pages = 2000
	rng := rand.New(rand.NewPCG(1, 12))
	for range 200 {
		var in, used [pages]bool
		random := func(of *[pages]bool) *wss.Set {
			s := &wss.Set{ImagePages: pages}
			for gfn := uint64(rng.IntN(50)); gfn < pages; gfn += uint64(1 + rng.IntN(50)) {
				of[gfn] = true
				s.Runs = append(s.Runs, wss.Run{GFN: gfn, Count: 1})
			}
			return s
		}
		set, touched := random(&in), random(&used)
		late := uint64(rng.IntN(20))
		want := wss.Counts{Window: time.Second}
		for gfn := range pages {
			switch {
			case in[gfn] && used[gfn]:
				want.Prefetched, want.Skipped = want.Prefetched+1, want.Skipped+1
			case in[gfn]:
				want.Prefetched++
			case used[gfn]:
				want.Lazy++
			}
		}
		for range min(late, want.Skipped) { // each late page is one that the guest waited for
			want.Skipped, want.Lazy = want.Skipped-1, want.Lazy+1
		}
		got, err := countPlayout(set, touched, late, time.Second)
		if err != nil || got != want {
			t.Fatalf("%+v %v, want %+v", got, err, want)
		}
	}
	if _, err := countPlayout(&wss.Set{ImagePages: 5}, &wss.Set{ImagePages: 6}, 0, 0); err == nil {
		t.Error("sets of two images were counted")
	}
}

// TestFillCacheStops: a file that takes long to read does not hold up an interrupt.
func TestFillCacheStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fillCache(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := fillCache(ctx, path); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
