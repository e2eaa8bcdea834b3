package fs

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest/retier"
)

func allCold(uint32) pack.Tier { return pack.TierCold }

// mixedTiers has pages of all kinds side by side.
func mixedTiers(slot uint32) pack.Tier { return pack.Tier((slot/5 + slot/31) % 4) }

// coldStore is a store with the image of a spec in tiers, and its working set.
func coldStore(tb testing.TB, x spec, tier func(slot uint32) pack.Tier) Store {
	tb.Helper()
	at := filepath.Join(tb.TempDir(), "store")
	store, err := index.Open(tb.Context(), at, index.OpenOptions{Create: true})
	if err != nil {
		tb.Fatal(err)
	}
	importSpec(tb, store, x)
	var runs []index.Run
	for _, r := range x.WS {
		runs = append(runs, index.Run{GFN: r[0], Count: r[1]})
	}
	if len(runs) > 0 {
		if _, err := store.SetWorkingSet(tb.Context(), x.Name, []byte("a set"), runs); err != nil {
			tb.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		tb.Fatal(err)
	}
	if retier.Packs(tb, at, tier) == 0 {
		tb.Fatal("there are no clusters")
	}
	if store, err = index.Open(tb.Context(), at, index.OpenOptions{}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	return NewStore(store)
}

// A reader finds every page of a store that was repacked, whatever brings them and in whatever order it
// touches them.
func TestColdStore(t *testing.T) {
	x := spec{Name: "vm", Pages: 4096, ZeroEvery: 9, Seed: 5, Soft: true}
	for first := uint64(0); first < x.Pages; first += 256 {
		x.WS = append(x.WS, [2]uint64{(first*37 + 5) % x.Pages, 24})
	}
	orders := map[string][]uint64{
		"by number": upTo(x.Pages), "random": shuffled(rand.New(rand.NewPCG(3, 4)), x.Pages),
		"scattered": scattered(x.Pages, 3),
	}
	store := coldStore(t, x, mixedTiers)
	for what, o := range map[string]Options{
		"lazy":        {Policy: PolicyLazy, RecordWindow: time.Nanosecond},
		"recorded":    {Policy: PolicyLazy, RecordWindow: time.Hour},
		"without":     {Policy: PolicyLazy, RecordWindow: time.Nanosecond, NoPush: true},
		"working set": {Policy: PolicyWorkingSet},
		"eager":       {Policy: PolicyEager},
		"fill":        {Policy: PolicyWorkingSet, Fill: 1 << 30, FillLarge: true},
	} {
		t.Run(what, func(t *testing.T) {
			b := mountedStore(t, store, o)
			c := b.client()
			for order, gfns := range orders {
				cold := b.Drop
				if what == "recorded" {
					cold = b.StartRecord
				}
				if err := cold(t.Context(), "vm"); err != nil {
					t.Fatal(err)
				}
				for _, path := range []string{"vm/memory", "vm/clones/1/memory"} {
					fd := c.open(b.path(path), unix.O_RDONLY)
					m := c.mapFile(fd, x.Pages)
					c.do(request{Op: "touch", Map: m, GFNs: gfns, Spec: &x})
					c.do(request{Op: "unmap", Map: m})
					c.close(fd)
				}
				st := b.stats("vm", "")
				t.Logf("%s: %d READs of %d pages, %d pushed", order, st.LazyRequests, len(gfns), st.PushedPages)
				if (what == "recorded" || what == "without") && st.PushedPages > 0 {
					t.Errorf("%d pages were pushed", st.PushedPages)
				}
				if what == "recorded" {
					sameRecord(t, b, gfns)
				}
			}
			if n := b.metrics.pushErrors.Load() + b.metrics.readErrors.Load(); n > 0 {
				t.Errorf("%d errors", n)
			}
		})
	}
}

// sameRecord takes a record, which must be of some pages, in their order.
func sameRecord(t *testing.T, b *bed, gfns []uint64) {
	t.Helper()
	set, err := b.Record(t.Context(), "vm", RecordOptions{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Collect(set.GFNs()); !slices.Equal(got, gfns) {
		t.Errorf("the record has %d pages, or others than the %d that were touched", len(got), len(gfns))
	}
}

// A cold page brings its cluster: who reads all of an image needs few READs, in any order.
func TestColdReads(t *testing.T) {
	x := spec{Name: "vm", Pages: 8192, Seed: 6, Soft: true}
	b := mountedStore(t, coldStore(t, x, allCold), Options{Policy: PolicyLazy, RecordWindow: time.Nanosecond})
	c := b.client()
	fd := c.open(b.path("vm/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	for what, gfns := range map[string][]uint64{
		"by number": upTo(x.Pages), "random": shuffled(rand.New(rand.NewPCG(3, 4)), x.Pages),
	} {
		// A pusher that gets no CPU falls behind, and so the best of some rounds counts.
		best := x.Pages
		for round := 0; round < 10 && best > x.Pages/8; round++ {
			if err := b.Drop(t.Context(), "vm"); err != nil {
				t.Fatal(err)
			}
			c.do(request{Op: "touch", Map: m, GFNs: gfns, Spec: &x})
			st := b.stats("vm", "")
			t.Logf("%s: %d READs of %d pages, %d pushed", what, st.LazyRequests, x.Pages, st.PushedPages)
			best = min(best, st.LazyRequests)
		}
		if best > x.Pages/8 {
			t.Errorf("%s: %d READs of %d pages, want an eighth", what, best, x.Pages)
		}
	}
}

// decoded is how many clusters of a store something decodes.
func decoded(store Store, do func()) uint64 {
	s := store.(indexStore).store
	before := s.DecodedClusters()
	do()
	return s.DecodedClusters() - before
}

// Whatever goes through a cold image has each cluster decoded once, but for few: those of the markers of a
// stream, and those that a reader needs before they were pushed.
func TestColdIsDecodedOnce(t *testing.T) {
	x := spec{Name: "vm", Pages: 8192, Seed: 6, Soft: true, Apart: true}
	store := coldStore(t, x, allCold)
	all := uint64(store.(indexStore).clusters(t, "vm"))
	for what, o := range map[string]Options{
		"touched": {Policy: PolicyLazy, RecordWindow: time.Nanosecond},
		"read":    {Policy: PolicyLazy, RecordWindow: time.Nanosecond},
		"eager":   {Policy: PolicyEager},
		"filled":  {Policy: PolicyLazy, RecordWindow: time.Nanosecond, Fill: 1 << 40, FillLarge: true},
	} {
		t.Run(what, func(t *testing.T) {
			b := mountedStore(t, store, o)
			c := b.client()
			// A pusher that gets no CPU falls behind, and so the best of some rounds counts.
			best := ^uint64(0)
			for round := 0; round < 10 && best > all*3/2; round++ {
				if err := b.Drop(t.Context(), "vm"); err != nil {
					t.Fatal(err)
				}
				best = min(best, decoded(store, func() {
					fd := c.open(b.path("vm/memory"), unix.O_RDONLY)
					switch what {
					case "touched":
						m := c.mapFile(fd, x.Pages)
						c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
						c.do(request{Op: "unmap", Map: m})
					case "read":
						for off := 0; off < int(x.Pages)*PageSize; off += 128 << 10 {
							c.do(request{Op: "pread", FD: fd, Off: int64(off), Len: 128 << 10})
						}
					case "filled":
						eventually(t, "it is filled", func() bool { return b.metrics.fills.Load() > uint64(round) })
					}
					c.close(fd)
				}))
				st := b.stats("vm", "")
				t.Logf("%d READs, %d pushed; %d clusters decoded, of %d", st.LazyRequests, st.PushedPages, best, all)
			}
			if best > all*3/2 {
				t.Errorf("%d clusters were decoded, of %d", best, all)
			}
		})
	}
}

// clusters is how many clusters an image has.
func (s indexStore) clusters(t testing.TB, name string) int {
	t.Helper()
	m, err := s.store.OpenImage(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ids := map[ClusterID]bool{}
	for gfn := range m.Pages() {
		if id, _, ok := m.Cluster(gfn); ok {
			ids[id] = true
		}
	}
	return len(ids)
}

// One READ decodes a cluster, and it is not decoded again: not to push its other pages, and not where they
// must not be pushed.
func TestClusterIsDecodedOnce(t *testing.T) {
	x := spec{Name: "a", Pages: 512, Seed: 7, Clusters: true}
	for what, o := range map[string]Options{
		"pushed":   {Policy: PolicyLazy, RecordWindow: time.Nanosecond},
		"recorded": {Policy: PolicyLazy, RecordWindow: time.Hour},
		"not":      {Policy: PolicyLazy, RecordWindow: time.Nanosecond, NoPush: true},
	} {
		t.Run(what, func(t *testing.T) {
			store := newFakeStore(x)
			b := mounted(t, store, o)
			c := b.client()
			fd := c.open(b.path("a/memory"), unix.O_RDONLY)
			m := c.mapFile(fd, x.Pages)
			image := &fakeImage{spec: x, store: store}
			c.do(request{Op: "touch", Map: m, GFNs: []uint64{4}, Spec: &x})
			pushes := what == "pushed"
			if pushes {
				eventually(t, "the cluster is pushed", func() bool { return b.stats("a", "").PushedPages == 15 })
			}
			c.do(request{Op: "touch", Map: m, GFNs: image.Neighbours(4, nil), Spec: &x})
			st := b.stats("a", "")
			want := map[bool]uint64{true: 1, false: 16}[pushes]
			if st.LazyPages < want || st.LazyPages > want+mayEvict(st) {
				t.Errorf("%d pages were read, want %d", st.LazyPages, want)
			}
			if !pushes && st.PushedPages > 0 {
				t.Errorf("%d pages were pushed", st.PushedPages)
			}
			if n := store.clusters.Load(); n != 1 {
				t.Errorf("the cluster was decoded %d times", n)
			}
			// The cluster of another machine is the same.
			clone := c.open(b.path("a/clones/1/memory"), unix.O_RDONLY)
			c.do(request{Op: "touch", Map: c.mapFile(clone, x.Pages), GFNs: image.Neighbours(4, nil), Spec: &x})
			if n := store.clusters.Load(); n != 1 {
				t.Errorf("with a clone the cluster was decoded %d times", n)
			}
		})
	}
}

// A cluster that is damaged is EIO for each of its pages, and nothing of it is pushed; blocks beside it are
// read.
func TestDamagedCluster(t *testing.T) {
	x := spec{Name: "a", Pages: 512, Seed: 8, Clusters: true}
	store := newFakeStore(x)
	image := &fakeImage{spec: x, store: store}
	store.bad = map[uint64]bool{}
	cluster := image.Neighbours(4, nil)
	store.bad[cluster[7]] = true
	b := mounted(t, store, Options{Policy: PolicyLazy, RecordWindow: time.Nanosecond})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	for range 2 * maxClusters { // each time its buffer is there for the next
		for _, gfn := range cluster[:2] {
			r := c.try(request{Op: "pread", FD: fd, Off: int64(gfn * PageSize), Len: PageSize})
			if r.Errno != unix.EIO {
				t.Fatalf("page %d: %v, want %v", gfn, r.Errno, unix.EIO)
			}
		}
	}
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: image.Neighbours(5, nil), Spec: &x})
	c.do(request{Op: "touch", Map: m, GFNs: image.Neighbours(6, nil), Spec: &x})
	if st := b.stats("a", ""); st.PushedPages > 15 {
		t.Errorf("%d pages were pushed, of a cluster of 16", st.PushedPages)
	}
	d := &b.clusters
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.all {
		if d.all[i].kept && d.all[i].of.id == 4 {
			t.Error("a cluster that could not be read is kept")
		}
	}
}

// The buffers of clusters, against a model: who takes a cluster finds it, or gets a buffer that nobody uses.
func TestClusters(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var d clusters
	type use struct {
		c     *cluster
		of    clusterKey
		write bool // not kept yet
	}
	var uses []use
	for range 20000 {
		if len(uses) > 0 && rnd.IntN(9) > 4 || len(uses) > 60 {
			i := rnd.IntN(len(uses))
			u := uses[i]
			if u.write && rnd.IntN(3) > 0 {
				d.keep(u.c)
			}
			d.give(u.c)
			uses = slices.Delete(uses, i, i+1)
			continue
		}
		of := clusterKey{rnd.Uint64N(2), ClusterID(rnd.IntN(50))}
		c, there := d.take(of)
		busy := map[*cluster]bool{}
		for _, u := range uses {
			busy[u.c] = true
			if u.c == c && (!there || u.of != of) {
				t.Fatalf("%v is in the buffer of %v: there %v", of, u.of, there)
			}
		}
		if c == nil {
			if len(busy) < maxClusters {
				t.Fatalf("no buffer, and %d are in use", len(busy))
			}
			continue
		}
		if there && c.ID != of.id {
			t.Fatalf("%v has the pages of %v", of, c.ID)
		}
		c.ID = of.id
		uses = append(uses, use{c, of, !there})
	}
	for _, u := range uses {
		d.give(u.c)
	}
	for i := range d.all {
		if d.all[i].users != 0 {
			t.Errorf("buffer %d is in use", i)
		}
	}
}
