package perf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
)

// A way is one way to touch an image that was cold, and what it took, a value a round.
type way struct {
	name, store string
	touches     []uint64
	flags       []string

	wall, cpu, p50, p99 []float64 // ms, ms, us, us
	reads, pushed       []float64
}

// TestAhead touches 100 MiB in scattered pages back to back: after a prefetch, lazily in the order of
// the layout, of the working set and of neither, with pushes and without, in turns, cold. It asserts
// nothing about the figures; package fs has a test that counts.
func TestAhead(t *testing.T) {
	cli.NeedFUSE(t)
	b := newBench(t)
	set := b.workingSet()
	both, layout, order := b.aheadStores(set)
	mixed := slices.Clone(set)
	rnd := rand.New(rand.NewPCG(9, 10))
	rnd.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	anywhere := b.sample(b.samples, 3)
	lazy, off := []string{"--restore=lazy"}, []string{"--restore=lazy", "--no-push"}
	ways := []*way{
		{name: "prefetch, then touch", store: both, touches: set, flags: []string{"--restore=working-set-full"}},
		{name: "lazy, order of layout and set", store: both, touches: set, flags: lazy},
		{name: "lazy, order of layout and set, no pushes", store: both, touches: set, flags: off},
		{name: "lazy, order of the layout", store: layout, touches: set, flags: lazy},
		{name: "lazy, order of the layout, no pushes", store: layout, touches: set, flags: off},
		{name: "lazy, order of the set", store: order, touches: set, flags: lazy},
		{name: "lazy, order of the set, no pushes", store: order, touches: set, flags: off},
		{name: "lazy, the set at random", store: layout, touches: mixed, flags: lazy},
		{name: "lazy, the set at random, no pushes", store: layout, touches: mixed, flags: off},
		{name: "lazy, anything at random", store: layout, touches: anywhere, flags: lazy},
		{name: "lazy, anything at random, no pushes", store: layout, touches: anywhere, flags: off},
	}
	for i := range b.rounds {
		for _, w := range ways {
			b.round(strings.ReplaceAll(w.name, " ", "-"), i, w.run)
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%-42s %7s %9s %9s %8s %8s %7s %7s %7s\n", "", "touched", "wall ms", "server ms",
		"READs", "pushed", "READs %", "p50 us", "p99 us")
	for _, w := range ways {
		n := len(w.touches)
		fmt.Fprintf(&out, "%-42s %7d %9.1f %9.1f %8.0f %8.0f %7.2f %7.2f %7.1f\n", w.name, n, median(w.wall),
			median(w.cpu), median(w.reads), median(w.pushed), 100*median(w.reads)/float64(n),
			median(w.p50), median(w.p99))
	}
	t.Logf("%d rounds, medians\n%s", b.rounds, out.String())
}

// aheadStores imports the image with a set as its layout and its working set, as its layout only, and
// as its working set only.
func (b *bench) aheadStores(set []uint64) (both, layout, order string) {
	both, layout, order = filepath.Join(b.dir, "both"), filepath.Join(b.dir, "layout"),
		filepath.Join(b.dir, "order")
	dir := filepath.Join(b.dir, "checkpoint")
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(b.image, filepath.Join(dir, "memory")); err != nil {
		b.t.Fatal(err)
	}
	cli.OK(b.t, "import", order, b.image, "--name", "vm", "--layout=physical")
	b.setWorkingSet(order, set) // writes the file, too
	if err := os.Link(filepath.Join(b.dir, "working-set"), filepath.Join(dir, "working-set")); err != nil {
		b.t.Fatal(err)
	}
	for _, store := range []string{both, layout} {
		cli.OK(b.t, "import", store, dir, "--name", "vm", "--layout=physical", "--max-share=100")
	}
	if err := os.Remove(filepath.Join(b.dir, "working-set")); err != nil {
		b.t.Fatal(err)
	}
	other := slices.IndexFunc(b.data, func(gfn uint64) bool { return !slices.Contains(set, gfn) })
	b.setWorkingSet(layout, b.data[other:other+1])
	return both, layout, order
}

// run is one round.
func (w *way) run(t *testing.T) {
	m := cli.Mount(t, w.store, w.flags...)
	c := m.Client(t)
	packs, err := filepath.Glob(filepath.Join(w.store, "packs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	chill(t, c, packs...)
	before := serverCPU(t, m.Pid())
	opened := c.Open(t, m.Path("vm/memory"), mapped)
	a := c.Must(t, client.Request{Op: "touch", GFNs: w.touches, Times: true})
	if len(a.Lost) > 0 {
		t.Fatalf("%d pages are lost", len(a.Lost))
	}
	w.wall = append(w.wall, float64(opened.Nanos+a.Nanos)/1e6)
	w.cpu = append(w.cpu, float64(serverCPU(t, m.Pid())-before)/1e6)
	w.p50 = append(w.p50, quantile(a.NS, 0.5)/1e3)
	w.p99 = append(w.p99, quantile(a.NS, 0.99)/1e3)
	s := m.Stats(t, "vm")
	w.reads, w.pushed = append(w.reads, float64(s.LazyRequests)), append(w.pushed, float64(s.PushedPages))
	t.Logf("%d pages of %d bytes: %v, %d major faults", len(w.touches), image.PageSize, s, a.Major)
}
