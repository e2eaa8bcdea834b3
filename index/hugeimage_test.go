package index

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/pack"
)

// syntheticImage is an image of 2^28 pages of which some are not zero, two MiB here and there, in packs of
// 2^20 pages, with a working set of runs of so many pages. It can be looked at, and not read.
func syntheticImage(data, runs, each uint64) *Image {
	const pages = 1 << 28
	rnd := rand.New(rand.NewPCG(1, 1))
	m := &pageMap{pages: pages, branches: make([]*branchMap, pages/branchPages), data: data}
	const perPack = 1 << 20
	for i := range (data + perPack - 1) / perPack {
		m.packs = append(m.packs, i+1)
	}
	leaves := data / LeafPages
	// Stored in another order than by number, as a trace lays them out: leaf by leaf.
	order := rnd.Perm(int(leaves))
	step := pages / LeafPages / leaves
	for i := range leaves {
		leaf := i * step
		b := m.branches[leaf/branchLeaves]
		if b == nil {
			b = &branchMap{}
			m.branches[leaf/branchLeaves] = b
		}
		l := leafMap{}
		for w := range l.bits {
			l.bits[w], l.before[w] = ^uint64(0), uint32(len(b.places)+64*w)
		}
		b.leaves = append(b.leaves, l)
		b.index[leaf%branchLeaves] = uint16(len(b.leaves))
		for j := range uint64(LeafPages) {
			slot := uint64(order[i])*LeafPages + j
			b.places = append(b.places, slot/perPack<<24|slot%perPack)
		}
	}
	r := &root{}
	for range runs {
		gfn := rnd.Uint64N(leaves)*step*LeafPages + rnd.Uint64N(LeafPages-each)
		r.setRuns = append(r.setRuns, Run{GFN: gfn, Count: each})
	}
	return &Image{root: r, pages: m, spots: make([]pack.Spots, len(m.packs)),
		entry: &catalogEntry{Checkpoint: Checkpoint{Layout: LayoutTrace}}}
}

// feedOf is the feed of a segment that has the whole set, in frames of 256 pages.
func feedOf(m *Image) *workingSetFeed {
	f := &workingSetFeed{m: m}
	for run, r := range m.root.setRuns {
		f.stored += r.Count
		if run%256 == 0 {
			f.frames = append(f.frames, segmentFrame{run: run, pages: int(256 * r.Count)})
		}
	}
	return f
}

// hugeShapes are what of 1 TiB is not zero, in pages, and how many runs of a page the working set has.
var hugeShapes = []struct{ data, runs uint64 }{{1 << 18, 1 << 14}, {1 << 21, 1 << 17}, {1 << 23, 1 << 19}}

// What the way back from slots to pages, and the orders of an image of 1 TiB cost: time and memory go by what
// is not zero, not by the image's size. Both are made in the background, after the first READ.
func BenchmarkHugeImage(b *testing.B) {
	for _, s := range hugeShapes {
		b.Run(fmt.Sprintf("%dGiB", s.data>>18), func(b *testing.B) {
			m := syntheticImage(s.data, s.runs, 1)
			feed := feedOf(m)
			least := [2]time.Duration{1<<63 - 1, 1<<63 - 1}
			var bytes [2]uint64
			for i, work := range m.huge(feed) {
				bytes[i] = held(work)
			}
			for b.Loop() {
				for i, work := range m.huge(feed) {
					start := cpuTime(b)
					work()
					least[i] = min(least[i], cpuTime(b)-start)
				}
			}
			for i, what := range []string{"back", "orders"} {
				b.ReportMetric(least[i].Seconds()*1e3, what+"-ms")
				b.ReportMetric(float64(bytes[i])/(1<<20), what+"-MiB")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// huge is what the benchmark measures.
func (m *Image) huge(feed *workingSetFeed) [2]func() any {
	return [2]func() any{
		func() any {
			r := newReverseMap(m.pages, m.spots)
			m.reverse = func() *reverseMap { return r }
			return r
		},
		func() any { return []any{newSetOrder(feed), newLayoutOrder(m)} },
	}
}

// held is how many bytes of memory something has made that it holds.
func held(work func() any) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x := work()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(x)
	return max(after.HeapAlloc, before.HeapAlloc) - before.HeapAlloc
}

// Of an image of 1 TiB a page that is not zero takes eight bytes on the way back, and none in the order of
// the layout; a run of the working set takes 32.
func TestHugeImage(t *testing.T) {
	const slack = 1 << 20
	for _, s := range hugeShapes[:2] {
		m := syntheticImage(s.data, s.runs, 1)
		most := [2]uint64{8*s.data + slack, 32*s.runs + slack}
		for i, work := range m.huge(feedOf(m)) {
			if got := held(work); got > most[i] {
				t.Errorf("%d pages, part %d: %d bytes, want %d at most", s.data, i, got, most[i])
			}
		}
	}
}

// An open and reads of single pages, as faults are, need no way back.
func TestReadsNeedNoWayBack(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "store"), nil)
	img := randomImage(rand.New(rand.NewPCG(1, 1)), 600)
	path := filepath.Join(t.TempDir(), "memory")
	writeSparse(t, path, img.bytes())
	mustImport(t, s, "one", Source{Memory: path}, []Run{{3, 20}, {100, 5}})
	m := openImage(t, s, "one")
	defer m.Close()
	m.reverse = func() *reverseMap { t.Error("it is made"); return newReverseMap(m.pages, m.spots) }
	page := make([]byte, PageSize)
	for gfn := range m.Pages() {
		if err := m.ReadPage(gfn, page); err != nil {
			t.Fatal(err)
		}
	}
	m.WorkingSetFeed()
	m.ZeroRuns(func(uint64, uint64) bool { return true })
}
