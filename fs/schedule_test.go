package fs

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/wss"
)

// A schedule has for each piece the earliest touch of one of its pages, as a search over the whole record
// finds it.
func TestSchedule(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	for range 200 {
		x := spec{Name: "a", Pages: 4000}
		store := newFakeStore(x)
		store.piece = 1 + rnd.IntN(100)
		var gfns []uint64
		for _, gfn := range rnd.Perm(int(x.Pages))[:1+rnd.IntN(1500)] {
			gfns = append(gfns, uint64(gfn))
		}
		feed := &fakeFeed{m: &fakeImage{spec: x, store: store}, gfns: gfns}
		record := randomRecord(rnd, x.Pages)
		s := newSchedule(feed, record)
		for i, d := range s.pieces {
			pages := feed.GFNs(i, nil)
			if want := earliestOf(record, pages); d.at != want || d.pages != len(pages) {
				t.Fatalf("piece %d: %+v, want %d pages at %v", i, d, len(pages), want)
			}
		}
	}
}

// randomRecord has runs of several sources, of which each names a page at most once.
func randomRecord(rnd *rand.Rand, pages uint64) *wss.Set {
	set := &wss.Set{ImagePages: pages, Window: time.Duration(rnd.IntN(2)) * time.Second}
	for _, source := range []wss.Source{wss.SourceTrace, wss.SourceRead, wss.SourceAccess} {
		if rnd.IntN(2) == 0 {
			continue
		}
		for gfn := uint64(rnd.IntN(50)); gfn < pages; gfn += 1 + uint64(rnd.IntN(50)) {
			r := wss.Run{GFN: gfn, Count: min(1+uint64(rnd.IntN(30)), pages-gfn), Source: source,
				At: time.Duration(rnd.IntN(1_000_000)) * time.Microsecond, VCPU: wss.NoVCPU}
			set.Runs, gfn = append(set.Runs, r), r.End()
		}
	}
	rnd.Shuffle(len(set.Runs), func(i, j int) { set.Runs[i], set.Runs[j] = set.Runs[j], set.Runs[i] })
	return set
}

func earliestOf(record *wss.Set, pages []uint64) time.Duration {
	at, end, timed := never, record.Window, false
	for _, r := range record.Runs {
		if r.Source == wss.SourceAccess {
			continue
		}
		timed, end = true, max(end, r.At)
		for _, gfn := range pages {
			if gfn >= r.GFN && gfn < r.End() {
				at = min(at, r.At)
			}
		}
	}
	if !timed {
		return never
	}
	return min(at, end)
}

// A record is read as it is stored, and what is no record is an error.
func TestReadRecord(t *testing.T) {
	x := timedSpec("a", 4, time.Second)
	store := newFakeStore(x)
	read := func() (*wss.Set, error) {
		list, err := store.List(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return readRecord(t.Context(), store, list[0])
	}
	set, err := read()
	if err != nil || set.Pages() != 4*256 || len(set.Runs) != 4 {
		t.Errorf("%+v, %v", set, err)
	}
	x.Files = nil
	store.set(x)
	if set, err := read(); set != nil || err != nil {
		t.Errorf("without a file: %+v, %v", set, err)
	}
	for _, text := range []string{"no record\n", strings.Repeat("x", 1<<20), "thaw-working-set 1\npages 4"} {
		x.Files = map[string]string{fileWorkingSet: text}
		store.set(x)
		if set, err := read(); set != nil || err == nil {
			t.Errorf("%.20q: %+v, no error", text, set)
		}
	}
}

// Neighbours are one run, and order is kept.
func TestEachRun(t *testing.T) {
	var got [][2]uint64
	eachRun([]uint64{3, 4, 5, 9, 1, 2, 7}, func(first, n uint64) { got = append(got, [2]uint64{first, n}) })
	if d := cmp.Diff([][2]uint64{{3, 3}, {9, 1}, {1, 2}, {7, 1}}, got); d != "" {
		t.Error(d)
	}
}
