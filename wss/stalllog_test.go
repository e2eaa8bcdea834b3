package wss

import (
	"encoding/json"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	ms  = time.Millisecond
	sec = time.Second
)

// us makes a duration of microseconds.
func us(n int) time.Duration { return time.Duration(n) * time.Microsecond }

// Two requests overlap, a third goes on; worked by hand.
func TestStallLog(t *testing.T) {
	origin := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	l := NewStallLog(origin)
	l.begin(us(500))
	l.begin(us(1200))
	l.end(us(1500))
	l.end(us(2300)) // one stall, 500..2300
	l.begin(us(2400))
	l.end(us(2450))
	l.begin(us(9100))
	want := StallSnapshot{
		Origin: origin, Elapsed: us(10_050), Outstanding: 1,
		StallSummary: StallSummary{
			Requests: 4, Stalled: us(1800 + 50 + 950), Waited: us(1800 + 300 + 50 + 950),
			Longest: us(1800), LongestAt: us(500), First: us(500), Last: us(10_050),
		},
		Buckets: []StallBucket{
			{us(500), us(250)}, {us(750), us(250)}, {us(1000), us(250)}, {us(1250), us(250)},
			{us(1500), us(250)}, {us(1750), us(250)}, {us(2000), us(250)}, {us(2250), us(50 + 50)},
			{us(9000), us(150)}, {us(9250), us(250)}, {us(9500), us(250)}, {us(9750), us(250)},
			{us(10_000), us(50)},
		},
	}
	if d := cmp.Diff(want, l.snapshot(us(10_050))); d != "" {
		t.Error(d)
	}
	// A snapshot of a stall that goes on changes nothing.
	l.end(us(9150))
	got := l.snapshot(us(10_050))
	if got.Stalled != us(1900) || len(got.Buckets) != 9 || got.Buckets[8].Stalled != us(50) {
		t.Errorf("after the end: %+v", got)
	}
	wantIn := []Interval{{us(500), us(2350)}, {us(9000), us(9050)}}
	if d := cmp.Diff(wantIn, got.Intervals(origin)); d != "" {
		t.Error("intervals:", d)
	}
	// Seen from 1.1 ms after the origin, what was before is gone.
	wantIn = []Interval{{0, us(1250)}, {us(7900), us(7950)}}
	if d := cmp.Diff(wantIn, got.Intervals(origin.Add(us(1100)))); d != "" {
		t.Error("intervals of a later clock:", d)
	}
}

// Buckets of the same octave are of one width, and every one lies whole in one octave.
func TestBucketsTile(t *testing.T) {
	var end time.Duration
	n := 0
	for at := time.Duration(0); at < 20*time.Minute; at = end {
		start, width := bucketAt(at)
		if start != at {
			t.Fatalf("a bucket begins at %v, the last ended at %v", start, at)
		}
		if last, _ := bucketAt(at + width - 1); last != at {
			t.Fatalf("[%v,+%v) is not one bucket", at, width)
		}
		if n++; at > 33*sec && (at/width < 1<<14 || at/width >= 1<<15) {
			t.Fatalf("a bucket of %v at %v", width, at)
		}
		end = at + width
	}
	if n > 1<<15+8*1<<14 { // 20 minutes: 0.25 ms buckets and eight octaves
		t.Errorf("%d buckets", n)
	}
}

func TestStallLogAgainstModel(t *testing.T) {
	const unit = 50 * time.Microsecond
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 4))
		l := NewStallLog(time.Time{})
		busy := map[int]int{} // outstanding requests in each unit of time
		var ends []int
		now, requests := 0, uint64(0)
		for range 60 {
			now += 1 + rng.IntN(30) // a stall that begins as another ends is another one
			l.begin(time.Duration(now) * unit)
			requests++
			end := now + rng.IntN(40)
			for u := now; u < end; u++ {
				busy[u]++
			}
			ends = append(ends, end)
			for i := len(ends) - 1; i >= 0; i-- {
				// End those that are over before the next begin can be; in order of time.
				if min := minIndex(ends); ends[min] <= now {
					l.end(time.Duration(now) * unit)
					for u := ends[min]; u < now; u++ {
						busy[u]++ // it was ended only now
					}
					ends = append(ends[:min], ends[min+1:]...)
				}
			}
		}
		for len(ends) > 0 {
			min := minIndex(ends)
			if ends[min] > now {
				now = ends[min]
			}
			l.end(time.Duration(now) * unit)
			for u := ends[min]; u < now; u++ {
				busy[u]++
			}
			ends = append(ends[:min], ends[min+1:]...)
		}
		var stalled, waited time.Duration
		buckets := map[time.Duration]time.Duration{}
		for u, n := range busy {
			if n > 0 {
				stalled += unit
				waited += time.Duration(n) * unit
				buckets[(time.Duration(u) * unit).Truncate(leastWidth)] += unit
			}
		}
		longest, longestAt := longestRun(busy, now)
		got := l.snapshot(time.Duration(now) * unit)
		if got.Requests != requests || got.Stalled != stalled || got.Waited != waited {
			t.Fatalf("seed %d: %+v, want %d requests, %v stalled, %v waited",
				seed, got.StallSummary, requests, stalled, waited)
		}
		if got.Longest != time.Duration(longest)*unit || got.LongestAt != time.Duration(longestAt)*unit {
			t.Fatalf("seed %d: %+v, the longest is %d units at %d", seed, got.StallSummary, longest,
				longestAt)
		}
		if len(got.Buckets) != len(buckets) {
			t.Fatalf("seed %d: %d buckets, want %d", seed, len(got.Buckets), len(buckets))
		}
		for _, b := range got.Buckets {
			if buckets[b.Start] != b.Stalled {
				t.Fatalf("seed %d: bucket %v, want %v", seed, b, buckets[b.Start])
			}
		}
	}
}

// longestRun is the first of the longest runs of units in which something was outstanding.
func longestRun(busy map[int]int, end int) (longest, at int) {
	n := 0
	for u := range end {
		if busy[u] == 0 {
			n = 0
			continue
		}
		if n++; n > longest {
			longest, at = n, u-n+1
		}
	}
	return longest, at
}

func minIndex(a []int) (at int) {
	for i := range a {
		if a[i] < a[at] {
			at = i
		}
	}
	return at
}

func TestStallLogLongStall(t *testing.T) {
	l := NewStallLog(time.Time{})
	l.begin(0)
	l.end(10 * 24 * time.Hour)
	got := l.snapshot(10 * 24 * time.Hour)
	if n := len(got.Buckets); n > 330_000 {
		t.Errorf("%d buckets for ten days", n)
	}
	var sum time.Duration
	for _, b := range got.Buckets {
		if b.Stalled != b.Width() && b.Start+b.Width() <= got.Last {
			t.Fatalf("bucket %v is not full", b)
		}
		sum += b.Stalled
	}
	if sum != got.Stalled {
		t.Errorf("buckets hold %v of %v", sum, got.Stalled)
	}
}

func TestStallLogReset(t *testing.T) {
	l := NewStallLog(time.Time{})
	l.begin(1 * sec)
	l.begin(2 * sec)
	l.end(3 * sec)
	origin := time.Now()
	l.Reset(origin)
	if s := l.snapshot(500 * ms); s.Requests != 1 || s.Stalled != 500*ms || !s.Origin.Equal(origin) {
		t.Errorf("after Reset: %+v", s.StallSummary)
	}
	l.end(600 * ms)
	if s := l.snapshot(sec); s.Stalled != 600*ms || s.Waited != 600*ms || s.Outstanding != 0 {
		t.Errorf("after the end: %+v", s)
	}
}

func TestStallLogConcurrent(t *testing.T) {
	l := NewStallLog(time.Now())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				l.Begin()
				l.End()
			}
		})
	}
	for range 50 {
		l.Snapshot()
	}
	wg.Wait()
	s := l.Snapshot()
	if s.Requests != 16_000 || s.Outstanding != 0 || s.Waited < s.Stalled || s.Elapsed < s.Last {
		t.Errorf("%+v", s)
	}
}

func TestStallLogDoesNotAllocate(t *testing.T) {
	l := NewStallLog(time.Now())
	l.Begin()
	l.End()
	at := l.last
	n := testing.AllocsPerRun(10_000, func() { // 1 s in all: a chunk for each 64 ms
		l.begin(at)
		at += us(60)
		l.end(at)
		at += us(40)
	})
	if n > 0.01 {
		t.Errorf("%v allocations a stall", n)
	}
}

func TestStallSnapshotJSON(t *testing.T) {
	l := NewStallLog(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	l.begin(us(500))
	l.end(us(2300))
	l.begin(40 * sec) // a bucket of 2 ms
	l.end(40*sec + us(10))
	s := l.snapshot(41 * sec)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"origin":"2026-11-22T12:00:00Z","elapsed_seconds":41,"outstanding":0,"requests":2,` +
		`"stall_seconds":0.00181,"wait_seconds":0.00181,"longest_seconds":0.0018,` +
		`"longest_at_seconds":0.0005,"first_seconds":0.0005,"last_seconds":40.00001,` +
		`"buckets_us":[[500,250,250],[750,250,250],[1000,250,250],[1250,250,250],` +
		`[1500,250,250],[1750,250,250],[2000,250,250],[2250,250,50],[40000000,2000,10]]}`
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Error(d)
	}
	var again StallSnapshot
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, again, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{
		`{"buckets_us":[[0,249,1]]}`, `{"buckets_us":[[0,250,251]]}`, `{"buckets_us":[[0,250,-1]]}`,
		`{"buckets_us":[[250,250,1],[0,250,1]]}`, `{"buckets_us":[[-250,250,1]]}`,
		`{"buckets_us":[[9000000000000000000,250,1]]}`, `{"buckets_us":1}`,
	} {
		if err := json.Unmarshal([]byte(bad), &again); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func BenchmarkStallLog(b *testing.B) {
	l := NewStallLog(time.Now())
	b.ReportAllocs()
	for b.Loop() {
		l.Begin()
		l.End()
	}
}

func BenchmarkStallLogParallel(b *testing.B) {
	l := NewStallLog(time.Now())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Begin()
			l.End()
		}
	})
}

func FuzzStallSnapshot(f *testing.F) {
	l := NewStallLog(time.Unix(0, 0).UTC())
	l.begin(us(500))
	l.end(us(2300))
	text, err := json.Marshal(l.snapshot(41 * sec))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"elapsed_seconds":1e300,"buckets_us":[[40000000,2000,10]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s StallSnapshot
		if json.Unmarshal(text, &s) != nil {
			return
		}
		var total, end time.Duration
		for _, i := range s.Intervals(s.Origin) {
			if i.Start < end || i.End <= i.Start {
				t.Fatalf("%v is not after %v", i, end)
			}
			total, end = total+i.End-i.Start, i.End
		}
		n := len(s.Buckets)
		if n > 0 && total > time.Duration(n)*s.Buckets[n-1].Width() {
			t.Fatal("more stalls than the buckets have room for")
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Skip("a time that JSON cannot say: ", err)
		}
		var twice StallSnapshot
		if err := json.Unmarshal(again, &twice); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s.Buckets, twice.Buckets); d != "" {
			t.Fatal(d)
		}
	})
}
