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
			m := cli.Mount(t, store, "--restore=working-set-full")
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

// measureFirstTouch compares the first touches of prefetched pages with those of a local file,
// mapped alike: reads, then writes (which copy the page). The kernel maps up to 16 cached
// neighbours at a fault, so the peer has the same pages in the page cache and no others; with the
// whole file there, and in large folios, as it is after a cp, it is a second peer.
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
	var thaw, same, whole touches
	for i := range b.rounds {
		b.round("touch", i, func(t *testing.T) {
			m := cli.Mount(t, store, "--restore=working-set-full")
			thaw.measure(t, m.Client(t), m.Path("vm/memory"), order)
			if s := m.Stats(t, "vm"); s.Demanded() > 0 {
				t.Errorf("%d demand reads of prefetched pages", s.Demanded())
			}
		})
		b.round("touch-peer", i, func(t *testing.T) {
			c := client.Start(t, nil)
			chill(t, c, local)
			c.Open(t, local, client.Map{NoMap: true})
			c.Must(t, client.Request{Op: "warm", GFNs: set})
			same.measure(t, c, local, order)
		})
		b.round("touch-whole", i, func(t *testing.T) {
			if _, err := cli.Tool(t, time.Minute, "sh", "-c", `cat "$0" >/dev/null`, local); err != nil {
				t.Fatal(err)
			}
			whole.measure(t, client.Start(t, nil), local, order)
		})
	}
	const what = "first touch of a prefetched page, "
	b.add(what+"read", "us", thaw.read, same.read, 1.1, "mean; peer: the same pages of a local file cached")
	b.add(what+"read p99", "us", thaw.tail, same.tail, 1.1, "")
	b.add(what+"write", "us", thaw.write, same.write, 1.1, "mean")
	b.add(what+"read", "us", thaw.read, whole.read, 0, "mean; peer: all of a local file cached")
	b.add(what+"write", "us", thaw.write, whole.write, 0, "mean")
}

// touches are the times of one side, in microseconds a page, one of each a round.
type touches struct{ read, tail, write []float64 }

func (s *touches) measure(t *testing.T, c *client.Client, path string, order []uint64) {
	t.Helper()
	c.Must(t, client.Request{Op: "pin", CPU: 0})
	mean := func(a client.Response) float64 { return float64(a.Nanos) / 1000 / float64(len(order)) }
	c.Open(t, path, mapped)
	a := c.Must(t, client.Request{Op: "touch", GFNs: order, Times: true})
	s.read, s.tail = append(s.read, mean(a)), append(s.tail, quantile(a.NS, 0.99)/1000)
	c.Open(t, path, mapped)
	s.write = append(s.write, mean(c.Must(t, client.Request{Op: "store", GFNs: order, Byte: 1})))
	c.Close(t)
}
