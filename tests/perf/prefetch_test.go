package perf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
)

// workingSet chooses pages in runs of 1 to 64 non-zero neighbours at random places: the order in
// which a guest would touch them.
func (b *bench) workingSet() []uint64 {
	rnd := rand.New(rand.NewPCG(5, 6))
	const run = 32
	starts := rnd.Perm(len(b.data) / run)
	var set []uint64
	for _, s := range starts {
		n := min(1+rnd.IntN(run), b.setPages-len(set))
		set = append(set, b.data[s*run:][:n]...)
		if len(set) == b.setPages {
			break
		}
	}
	return set
}

// setWorkingSet gives the checkpoint "vm" that working set.
func (b *bench) setWorkingSet(store string, set []uint64) {
	var text strings.Builder
	fmt.Fprintf(&text, "thaw-working-set 1\npages %d\nwindow 10s\nway test\n"+
		"created 2026-01-02T03:04:05Z\n\n", b.pages)
	for i, gfn := range set {
		fmt.Fprintf(&text, "%d 1 %d read\n", gfn, i)
	}
	path := filepath.Join(b.dir, "working-set")
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		b.t.Fatal(err)
	}
	cli.OK(b.t, "ws", "import", store, "vm", path)
}

// chill evicts files from the host's page cache.
func chill(t *testing.T, c *client.Client, files ...string) {
	t.Helper()
	for _, f := range files {
		c.Must(t, client.Request{Op: "dropcache", Path: f})
	}
}

// measurePrefetch compares the open of a cold image by its working set with an O_DIRECT read of
// the same bytes and with a restore in REAP's manner.
func (b *bench) measurePrefetch(store string) {
	set := b.workingSet()
	b.setWorkingSet(store, set)
	raw := filepath.Join(b.dir, "set.raw")
	b.writeSet(raw, set)
	var open, read, reaped, rate []float64
	for i := range b.rounds {
		b.round("prefetch", i, func(t *testing.T) {
			m := cli.Mount(t, store)
			c := m.Client(t)
			packs, err := filepath.Glob(filepath.Join(store, "packs", "*"))
			if err != nil {
				t.Fatal(err)
			}
			chill(t, c, packs...)
			took := float64(c.Open(t, m.Path("vm/memory"), mapped).Nanos) / 1e6
			open = append(open, took)
			rate = append(rate, float64(len(set)*image.PageSize)/1e3/took)
			s := m.Stats(t, "vm")
			if int(s.PrefetchedPages) != len(set) {
				t.Errorf("%d pages prefetched, want %d", s.PrefetchedPages, len(set))
			}
			c.Right(t, client.Request{GFNs: set, Source: b.image})
			if s := m.Stats(t, "vm"); s.Demanded() > 0 {
				t.Errorf("%d demand reads of prefetched pages", s.Demanded())
			}
		})
		b.round("prefetch-peers", i, func(t *testing.T) {
			c := client.Start(t, nil)
			chill(t, c, raw)
			buf, err := alignedBuffer(len(set) * image.PageSize)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := readDirect(raw, buf); err != nil {
				t.Fatal(err)
			}
			read = append(read, time.Since(start).Seconds()*1e3)
			_, all, err := reap(raw, set, b.pages)
			if err != nil {
				t.Skipf("no figure of REAP: %v", err)
			}
			reaped = append(reaped, all.Seconds()*1e3)
		})
	}
	mib := fmt.Sprintf("%d MiB", len(set)*image.PageSize>>20)
	b.add("prefetch of "+mib+", cold", "ms", open, read, 1.0, "peer: O_DIRECT read of the same bytes")
	b.add("prefetch of "+mib+", cold", "ms", open, reaped, 0.7, "peer: REAP, read and UFFDIO_COPY")
	b.add("prefetch of "+mib+", cold", "MB/s", rate, []float64{0}, 0, "")
}

// writeSet writes the pages of the working set to one contiguous file.
func (b *bench) writeSet(path string, set []uint64) {
	data, err := os.ReadFile(b.image)
	if err != nil {
		b.t.Fatal(err)
	}
	out := make([]byte, 0, len(set)*image.PageSize)
	for _, gfn := range set {
		out = append(out, data[gfn*image.PageSize:][:image.PageSize]...)
	}
	if err := os.WriteFile(path, out, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// measureFirstTouch compares the first touches of prefetched pages with those of a local file in
// the page cache, mapped alike: reads, then writes (which copy the page).
func (b *bench) measureFirstTouch(store string) {
	set := b.workingSet()
	b.setWorkingSet(store, set)
	rnd := rand.New(rand.NewPCG(7, 8))
	order := slices.Clone(set)
	rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	local := filepath.Join(b.dir, "local.mem")
	if _, err := cli.Tool(b.t, time.Minute, "cp", "--sparse=never", b.image, local); err != nil {
		b.t.Fatal(err)
	}
	kinds := []string{"read", "write"}
	thaw, peer := map[string][]float64{}, map[string][]float64{}
	var p99, peer99 []float64
	touch := func(t *testing.T, c *client.Client, path string, into map[string][]float64, tail *[]float64) {
		c.Must(t, client.Request{Op: "pin", CPU: 0})
		for _, kind := range kinds {
			c.Open(t, path, mapped)
			r := client.Request{Op: "touch", GFNs: order, Times: true}
			if kind == "write" {
				r = client.Request{Op: "store", GFNs: order, Byte: 1}
			}
			a := c.Must(t, r)
			into[kind] = append(into[kind], float64(a.Nanos)/1000/float64(len(order)))
			if kind == "read" {
				*tail = append(*tail, quantile(a.NS, 0.99)/1000)
			}
		}
		c.Close(t)
	}
	for i := range b.rounds {
		b.round("touch", i, func(t *testing.T) {
			m := cli.Mount(t, store)
			touch(t, m.Client(t), m.Path("vm/memory"), thaw, &p99)
			if s := m.Stats(t, "vm"); s.Demanded() > 0 {
				t.Errorf("%d demand reads of prefetched pages", s.Demanded())
			}
		})
		b.round("touch-peer", i, func(t *testing.T) {
			if _, err := cli.Tool(t, time.Minute, "sh", "-c", `cat "$0" >/dev/null`, local); err != nil {
				t.Fatal(err)
			}
			touch(t, client.Start(t, nil), local, peer, &peer99)
		})
	}
	for _, kind := range kinds {
		b.add("first touch of a prefetched page, "+kind, "us", thaw[kind], peer[kind], 1.1,
			"mean; peer: a local file in the page cache")
	}
	b.add("first touch of a prefetched page, read p99", "us", p99, peer99, 1.1, "")
}
