package disk

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const ms = time.Millisecond

// arrival is a request at its time, and its expected result.
type arrival struct {
	at         time.Duration
	pos, size  int64
	start, end time.Duration
	seek       bool
}

// TestModelByHand has cases that were worked out on paper. A megabyte takes 10 ms at 100 MB/s.
func TestModelByHand(t *testing.T) {
	hdd := Spec{Name: "hdd", Seek: 10 * ms, Bandwidth: 100e6, Parallel: 1}
	reader := Spec{Name: "reads on", Seek: 10 * ms, Bandwidth: 100e6, Parallel: 1, ReadOn: 5 * ms}
	nfs := Spec{Name: "nfs", Latency: 1 * ms, Bandwidth: 100e6, Parallel: 4}
	s3 := Spec{Name: "s3", Latency: 20 * ms, Bandwidth: 100e6, Parallel: 2}
	const mb = 1_000_000
	for name, c := range map[string]struct {
		spec Spec
		in   []arrival
	}{
		"hdd: the first request seeks": {hdd, []arrival{
			{at: 5 * ms, pos: 0, size: mb, start: 5 * ms, end: 25 * ms, seek: true},
		}},
		"hdd: going on costs no seek, at once or after a rest": {hdd, []arrival{
			{at: 0, pos: 7, size: mb, start: 0, end: 20 * ms, seek: true},
			{at: 20 * ms, pos: 7 + mb, size: mb, start: 20 * ms, end: 30 * ms},
			{at: 90 * ms, pos: 7 + 2*mb, size: mb, start: 90 * ms, end: 100 * ms},
		}},
		"hdd: a byte further, a byte back and the same again are seeks": {hdd, []arrival{
			{at: 0, pos: 0, size: mb, start: 0, end: 20 * ms, seek: true},
			{at: 20 * ms, pos: mb + 1, size: mb, start: 20 * ms, end: 40 * ms, seek: true},
			{at: 40 * ms, pos: 2 * mb, size: mb, start: 40 * ms, end: 60 * ms, seek: true},
			{at: 60 * ms, pos: 2 * mb, size: mb, start: 60 * ms, end: 80 * ms, seek: true},
		}},
		"hdd: one head, first come first served, though sorting would save a seek": {hdd, []arrival{
			{at: 0, pos: 0, size: mb, start: 0, end: 20 * ms, seek: true},
			{at: 1 * ms, pos: 50 * mb, size: mb, start: 20 * ms, end: 40 * ms, seek: true},
			{at: 2 * ms, pos: mb, size: mb, start: 40 * ms, end: 60 * ms, seek: true},
		}},
		"reading on: late by less than that costs nothing, by more the rest": {reader, []arrival{
			{at: 0, pos: 0, size: mb, start: 0, end: 20 * ms, seek: true},
			{at: 23 * ms, pos: mb, size: mb, start: 23 * ms, end: 30 * ms},
			{at: 30 * ms, pos: 2 * mb, size: mb, start: 30 * ms, end: 40 * ms},
			{at: 48 * ms, pos: 3 * mb, size: mb, start: 48 * ms, end: 53 * ms},
			{at: 90 * ms, pos: 4 * mb, size: mb / 10, start: 90 * ms, end: 90 * ms},
			{at: 91 * ms, pos: 0, size: mb, start: 91 * ms, end: 111 * ms, seek: true},
		}},
		"nfs: round trips side by side, bytes one after another": {nfs, []arrival{
			{at: 0, pos: 0, size: mb, start: 0, end: 11 * ms},
			{at: 0, pos: 9 * mb, size: mb, start: 0, end: 21 * ms},
			{at: 15 * ms, pos: 0, size: mb, start: 15 * ms, end: 31 * ms},
			{at: 40 * ms, pos: 0, size: mb, start: 40 * ms, end: 51 * ms},
		}},
		"s3: one after another is mostly waiting": {s3, []arrival{
			{at: 0, pos: 0, size: mb, start: 0, end: 30 * ms},
			{at: 30 * ms, pos: mb, size: mb, start: 30 * ms, end: 60 * ms},
		}},
		"s3: the third request waits for a connection": {s3, []arrival{
			{at: 0, pos: 0, size: mb, start: 0, end: 30 * ms},
			{at: 0, pos: 0, size: mb, start: 0, end: 40 * ms},
			{at: 0, pos: 0, size: mb, start: 30 * ms, end: 60 * ms},
			{at: 0, pos: 0, size: mb, start: 40 * ms, end: 70 * ms},
		}},
		"an empty request costs its way": {hdd, []arrival{
			{at: 0, pos: 3, size: 0, start: 0, end: 10 * ms, seek: true},
			{at: 0, pos: 3, size: mb, start: 10 * ms, end: 20 * ms},
		}},
		"a byte takes the ten nanoseconds it needs": {hdd, []arrival{
			{at: 0, pos: 0, size: 1, start: 0, end: 10*ms + 10, seek: true},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewModel(c.spec)
			for i, a := range c.in {
				got := m.Schedule(a.at, Request{a.pos, a.size})
				if d := cmp.Diff(Service{a.start, a.end, a.seek}, got); d != "" {
					t.Errorf("request %d: %s", i, d)
				}
			}
		})
	}
}

// TestTransferRoundsUp: no rounding makes the link faster than it is.
func TestTransferRoundsUp(t *testing.T) {
	s := Spec{Bandwidth: 3}
	for n, want := range map[int64]time.Duration{
		0: 0, 1: 333_333_334, 2: 666_666_667, 3: time.Second, 3 << 30: 1 << 30 * time.Second,
	} {
		if got := s.transfer(n); got != want {
			t.Errorf("%d bytes at 3 bytes/s: %v, want %v", n, got, want)
		}
	}
}

// TestModelProperties runs random requests past every device and compares the results with
// what a device is, in another way than the model computes it.
func TestModelProperties(t *testing.T) {
	for _, spec := range append(specs[:], Spec{"odd", 3 * ms, 2 * ms, 12345, 3, ms}) {
		for seed := range uint64(20) {
			t.Run(fmt.Sprintf("%s/%d", spec.Name, seed), func(t *testing.T) {
				checkProperties(t, spec, rand.New(rand.NewPCG(seed, 7)))
			})
		}
	}
}

func checkProperties(t *testing.T, spec Spec, rnd *rand.Rand) {
	m := NewModel(spec)
	var now, lastStart, lastEnd time.Duration
	var sum, end int64 // bytes since the device was last idle; where the last request ended
	var since time.Duration
	var ends []time.Duration
	for i := range 300 {
		now += time.Duration(rnd.Int64N(int64(spec.Latency + spec.Seek + ms)))
		r := Request{rnd.Int64N(1 << 30), rnd.Int64N(1 << 18)}
		if rnd.IntN(2) == 0 {
			r.Pos = end
		}
		v := m.Schedule(now, r)
		seek := spec.Seek > 0 && (i == 0 || r.Pos != end)
		alone := spec.Latency - spec.ReadOn + time.Duration(float64(r.Size)/float64(spec.Bandwidth)*1e9)
		if seek {
			alone += spec.Seek
		}
		switch {
		case v.Seek != seek:
			t.Fatalf("request %d at %d behind %d: seek %v", i, r.Pos, end, v.Seek)
		case v.Start < now || v.End < now:
			t.Fatalf("request %d is begun before it came", i)
		case v.End-v.Start < alone-time.Microsecond:
			t.Fatalf("request %d took %v, alone it takes %v", i, v.End-v.Start, alone)
		case v.Start < lastStart || v.End < lastEnd:
			t.Fatalf("request %d overtook the one before it", i)
		case spec.Parallel == 1 && v.Start < lastEnd:
			t.Fatalf("request %d was begun while the head did another", i)
		case now >= lastEnd && v.Start != now:
			t.Fatalf("request %d waited for an idle device", i)
		}
		// While the device is busy without a pause, it must not have moved more than its bandwidth.
		if now >= lastEnd {
			sum, since = 0, max(lastEnd, now-spec.ReadOn)
		}
		if sum += r.Size; float64(sum) > float64(spec.Bandwidth)*(v.End-since).Seconds()+1 {
			t.Fatalf("%d bytes in %v", sum, v.End-since)
		}
		// No more than Parallel are served at the same time: all but so many of those before must
		// have ended.
		busy := 1
		for _, e := range ends {
			if e > v.Start {
				busy++
			}
		}
		if busy > spec.Parallel {
			t.Fatalf("request %d is one of %d at once", i, busy)
		}
		ends = append(ends, v.End)
		lastStart, lastEnd, end = v.Start, v.End, r.Pos+r.Size
	}
}

func TestParseSpec(t *testing.T) {
	for _, s := range specs {
		if got, err := ParseSpec(s.Name); err != nil || got != s || got.String() != s.Name {
			t.Errorf("%s: %v, %v", s.Name, got, err)
		}
	}
	if s, err := ParseSpec("native"); err != nil || !s.Native() || s.String() != "native" {
		t.Errorf("native: %v, %v", s, err)
	}
	for _, name := range []string{"", "HDD", "ssd"} {
		if _, err := ParseSpec(name); err == nil {
			t.Errorf("%q is a disk", name)
		}
	}
}
