package fs

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/disk"
)

// slowBed mounts a real store with the image that a spec describes, its packs on a simulated disk
// with one head.
func slowBed(t *testing.T, c *spec, o Options) (*bed, *disk.Disk) {
	t.Helper()
	image := make([]byte, c.Pages*PageSize)
	for gfn := range c.Pages {
		c.fillPage(gfn, image[gfn*PageSize:][:PageSize])
	}
	memory := filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(memory, image, 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := index.OpenSource(memory)
	if err != nil {
		t.Fatal(err)
	}
	var set []index.Run
	for _, r := range c.WS {
		set = append(set, index.Run{GFN: r[0], Count: r[1]})
	}
	at := filepath.Join(t.TempDir(), "store")
	store, err := index.Open(t.Context(), at, index.OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = store.Import(t.Context(), src, index.ImportOptions{Name: c.Name, WorkingSet: set})
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	d := disk.New(disk.Spec{Name: "test", Seek: 500 * time.Microsecond, Bandwidth: 1e9, Parallel: 1})
	store, err = index.Open(t.Context(), at, index.OpenOptions{
		Wrap: func(ctx context.Context, b blob.Store) (blob.Store, error) {
			return disk.Wrap(ctx, b, d)
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return mountedStore(t, NewStore(store), o), d
}

// TestSlowDisk counts what a restore costs a disk with one head: the prefetch is one sequential
// read, however many decode it, and a fault is one read, which brings its whole locality block.
func TestSlowDisk(t *testing.T) {
	c := &spec{Name: "a", Pages: 4096}
	rnd := rand.New(rand.NewPCG(1, 1))
	const inSet = 1500
	order := rnd.Perm(int(c.Pages))
	for _, gfn := range order[:inSet] {
		c.WS = append(c.WS, [2]uint64{uint64(gfn), 1})
	}
	b, d := slowBed(t, c, Options{Policy: PolicyWorkingSetFull, Workers: 4})
	client := b.client()
	spent := func(what string, fn func(), requests, seeks int64) {
		t.Helper()
		before := d.Stats()
		fn()
		after := d.Stats()
		if n := after.Requests - before.Requests; n != requests {
			t.Errorf("%s: %d reads, want %d", what, n, requests)
		}
		if n := after.Seeks - before.Seeks; n != seeks {
			t.Errorf("%s: %d seeks, want %d", what, n, seeks)
		}
	}
	fd := client.open(b.path("a/memory"), unix.O_RDONLY) // reads the page map as well
	client.close(fd)
	frames := int64((inSet + 255) / 256)
	for range 3 {
		if err := b.Drop(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		spent("prefetch", func() { fd = client.open(b.path("a/memory"), unix.O_RDONLY) }, frames, 1)
		if n := b.stats("a", "").PrefetchedPages; n != inSet {
			t.Errorf("%d pages prefetched", n)
		}
	}
	m := client.mapFile(fd, c.Pages)
	touch := func(gfns []uint64) { client.do(request{Op: "touch", Map: m, Spec: c, GFNs: gfns}) }
	var wsPages, first []uint64
	for _, gfn := range order[:inSet] {
		wsPages = append(wsPages, uint64(gfn))
	}
	spent("touching the set", func() { touch(wsPages) }, 0, 0)
	// The rest lies in blocks of 16 by number: the first page of each, far from the last one's. Of the
	// first eight blocks no page is left out as a probe.
	rest := restOf(c.Pages, wsPages)
	for _, i := range rnd.Perm(len(rest) / 16) {
		if len(first) < 8 && i%2 == 0 { // no two side by side, which would save a seek
			first = append(first, rest[i*16])
		}
	}
	spent("faults", func() { touch(first) }, int64(len(first)), int64(len(first)))
	eventually(t, "neighbours pushed", func() bool {
		return b.stats("a", "").PushedPages == uint64(len(first)*15)
	})
	var beside []uint64
	for _, gfn := range first {
		for i, r := range rest {
			if r == gfn {
				beside = append(beside, rest[i+1:i+16]...)
			}
		}
	}
	spent("their neighbours", func() { touch(beside) }, 0, 0)
	if st := b.stats("a", ""); st.LazyPages != uint64(len(first)) {
		t.Errorf("%d pages came on demand, want %d", st.LazyPages, len(first))
	}
}

// restOf returns the pages below n that are not in set, ascending.
func restOf(n uint64, set []uint64) (rest []uint64) {
	in := map[uint64]bool{}
	for _, gfn := range set {
		in[gfn] = true
	}
	for gfn := range n {
		if !in[gfn] {
			rest = append(rest, gfn)
		}
	}
	return rest
}
