package perf

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/tests/internal/proc"
)

var (
	loadMachines = flag.Int("load.machines", 64, "machines that are restored at once")
	loadImages   = flag.Int("load.images", 8, "images that they are restored from")
	loadMiB      = flag.Int("load.mib", 64, "memory of each, in MiB")
)

// load is a store of some images, and machines that are restored from them.
type load struct {
	t       *testing.T
	dir     string
	store   string
	images  []loadImage
	clients int
}

type loadImage struct {
	name string
	file string // its memory
	set  []uint64
	rest []uint64 // pages that are not zero, and in no set
}

// newLoad makes images whose set is an eighth of their memory, in runs, and imports them.
func newLoad(t *testing.T, machines, images int, pages uint64) *load {
	l := &load{t: t, dir: t.TempDir(), clients: machines}
	l.store = filepath.Join(l.dir, "store")
	paths := []string{"import", l.store}
	for i := range images {
		x := makeLoadImage(t, l.dir, i, pages)
		l.images = append(l.images, x)
		paths = append(paths, filepath.Dir(x.file))
	}
	cli.OK(t, paths...)
	return l
}

func makeLoadImage(t *testing.T, dir string, i int, pages uint64) loadImage {
	t.Helper()
	x := loadImage{name: fmt.Sprintf("image%d", i)}
	if err := os.Mkdir(filepath.Join(dir, x.name), 0o755); err != nil {
		t.Fatal(err)
	}
	x.file = filepath.Join(dir, x.name, "memory")
	spec := image.Spec{Pages: pages, Seed: uint64(i) + 1}
	if err := spec.Write(x.file); err != nil {
		t.Fatal(err)
	}
	const run = 16
	rnd := rand.New(rand.NewPCG(uint64(i), 8))
	var text strings.Builder
	fmt.Fprintf(&text, "thaw-working-set 1\npages %d\nwindow 10s\nway test\n"+
		"created 2026-01-02T03:04:05Z\n\n", pages)
	for n, at := range rnd.Perm(int(pages) / run) {
		for gfn := uint64(at * run); gfn < uint64(at+1)*run; gfn++ {
			switch {
			case spec.Kind(gfn) == image.Zero:
			case uint64(n) < pages/8/run*2: // half of all runs are zeros
				fmt.Fprintf(&text, "%d 1 %d read\n", gfn, 100*len(x.set))
				x.set = append(x.set, gfn)
			default:
				x.rest = append(x.rest, gfn)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, x.name, "working-set"), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return x
}

// path is the memory of a machine: a clone of its image.
func (l *load) path(m *cli.Mounted, machine int) string {
	return m.Path(l.of(machine).name, "clones", fmt.Sprint("m", machine), "memory")
}

func (l *load) of(machine int) loadImage { return l.images[machine%len(l.images)] }

// each calls a function for all machines at once.
func (l *load) each(do func(machine int)) {
	var all sync.WaitGroup
	for i := range l.clients {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// start starts the processes of the machines.
func (l *load) start(t *testing.T, m *cli.Mounted) []*client.Client {
	all := make([]*client.Client, l.clients)
	for i := range all {
		all[i] = m.Client(t)
	}
	return all
}

// spread describes how long things took that were begun at once.
func spread(what string, ns []int64) string {
	ms := func(q float64) float64 { return quantile(ns, q) / 1e6 }
	return fmt.Sprintf("%-34s median %9.3f ms, p99 %9.3f ms, longest %9.3f ms = %.1f of the median", what,
		ms(0.5), ms(0.99), ms(1), ms(1)/max(ms(0.5), 1e-9))
}

// TestLoad restores many machines at once from a few images, with a cold disk, checks every page that they
// touch, and prints how long opens and faults took, and what the server took. Then as many machines fault in
// pages without a restore, and as many readers those of a plain FUSE file system.
func TestLoad(t *testing.T) {
	cli.NeedFUSE(t)
	machines, images, pages, rounds, faults := *loadMachines, *loadImages, uint64(*loadMiB)<<8, 5, 1000
	if !*full {
		machines, images, pages, rounds, faults = 8, 2, 1<<10, 1, 100
	}
	l := newLoad(t, machines, images, pages)
	t.Run("restore", l.restore)
	var ours, peers []int64
	for i := range rounds {
		t.Run(fmt.Sprint("faults/", i), func(t *testing.T) {
			ours = append(ours, l.fault(t, faults, uint64(i))...)
		})
		t.Run(fmt.Sprint("readers/", i), func(t *testing.T) {
			peers = append(peers, l.readPlain(t, faults, uint64(i))...)
		})
	}
	us := func(ns []int64, q float64) float64 { return quantile(ns, q) / 1e3 }
	for _, q := range []float64{0.5, 0.99, 0.999, 1} {
		t.Logf("a fault of %d at once, %5.1f %%: %8.0f us; plain FUSE readers: %8.0f us; ratio %.2f", machines,
			100*q, us(ours, q), us(peers, q), us(ours, q)/us(peers, q))
	}
}

// restore restores all machines at once, and lets each touch its set and as much else.
func (l *load) restore(t *testing.T) {
	w := mountWatched(t, l.store)
	clients := l.start(t, w.Mounted)
	before := w.settled()
	chillStore(t, clients[0], l.store)
	guests := l.guests(t, w.Mounted)
	opens := make([]int64, l.clients)
	touches := make([][]int64, l.clients)
	l.each(func(i int) {
		x := l.of(i)
		a, err := clients[i].Call(client.Request{Op: "open", Path: l.path(w.Mounted, i), Map: mapped})
		if err != nil || a.Error != "" {
			t.Errorf("machine %d: %v %s", i, err, a.Error)
			return
		}
		opens[i] = a.Nanos
		rest := slices.Clone(x.rest)
		rnd := rand.New(rand.NewPCG(uint64(i), 9))
		rnd.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		gfns := append(slices.Clone(x.set), rest[:min(len(rest), len(x.set))]...)
		a, err = clients[i].Call(client.Request{Op: "touch", GFNs: gfns, Times: true, Source: x.file})
		if err != nil || a.Error != "" || len(a.Wrong)+len(a.Lost) > 0 {
			t.Errorf("machine %d: %v %s, wrong %v, lost %v", i, err, a.Error, client.First(a.Wrong),
				client.First(a.Lost))
			return
		}
		touches[i] = a.NS
	})
	guests()
	if t.Failed() {
		return
	}
	for _, c := range clients {
		c.Close(t)
	}
	peak := w.most()
	t.Log(spread(fmt.Sprintf("%d opens of %d images:", l.clients, len(l.images)), opens))
	t.Log(spread("a touch of the set or beside it:", slices.Concat(touches...)))
	t.Logf("server before:  %v", before)
	t.Logf("at most:        %v", peak)
	t.Logf("all closed:     %v", w.settled())
}

// chillStore evicts the packs of a store from the host's page cache.
func chillStore(t *testing.T, c *client.Client, store string) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(store, "packs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	chill(t, c, packs...)
}

// guests restores some machines of KVM beside the others, where there is any; the function that is returned
// waits for them.
func (l *load) guests(t *testing.T, m *cli.Mounted) (wait func()) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Log("without guests of KVM: ", err)
		return func() {}
	}
	saved := filepath.Join(l.dir, "guest")
	saveGuest(t, saved)
	cli.OK(t, "import", l.store, saved)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if r := cli.Run(t, "vm", "restore", m.Path("guest"), "--for=1s"); r.Code != 0 {
				t.Errorf("a guest of KVM: %v", r)
			}
		})
	}
	return all.Wait
}

// saveGuest saves a machine of KVM.
func saveGuest(t *testing.T, dir string) {
	t.Helper()
	sockets, err := os.MkdirTemp("", "thaw-vm") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(sockets)
	api := filepath.Join(sockets, "s")
	p, err := proc.Start(cli.Command("vm", "run", "heap", "--memory=32MiB", "--api", api))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Kill(10 * time.Second) }()
	args := []string{"vm", "checkpoint", api, dir, "--scan=200ms", "--trace=200ms", "--stop"}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for range 600 { // until it answers
		if _, err := os.Stat(api); err == nil {
			break
		}
		<-again.C
	}
	cli.OK(t, args...)
}

// fault has each machine touch pages of its image, lazily and at random, all of them at once.
func (l *load) fault(t *testing.T, n int, seed uint64) (ns []int64) {
	m := cli.Mount(t, l.store, "--restore=lazy", "--record-window=1ns", "--repack=off")
	warm(t, l.store)
	return l.touchAll(t, l.start(t, m), n, seed, func(i int) string { return l.path(m, i) })
}

// readPlain is the same from a file system that has one image in RAM.
func (l *load) readPlain(t *testing.T, n int, seed uint64) (ns []int64) {
	mnt, _ := mountRAM(t, l.images[0].file)
	clients := make([]*client.Client, l.clients)
	for i := range clients {
		clients[i] = client.Start(t, nil)
	}
	return l.touchAll(t, clients, n, seed, func(i int) string {
		return filepath.Join(mnt, fmt.Sprintf("%s-%d", ramName, i))
	})
}

func (l *load) touchAll(t *testing.T, clients []*client.Client, n int, seed uint64,
	path func(i int) string) (ns []int64) {
	for i, c := range clients {
		c.Open(t, path(i), mapped)
	}
	all := make([][]int64, l.clients)
	l.each(func(i int) {
		x := l.of(i)
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		gfns := slices.Concat(x.set, x.rest)
		rnd.Shuffle(len(gfns), func(i, j int) { gfns[i], gfns[j] = gfns[j], gfns[i] })
		a, err := clients[i].Call(client.Request{Op: "touch", GFNs: gfns[:min(n, len(gfns))], Times: true})
		if err != nil || a.Error != "" || len(a.Lost) > 0 {
			t.Errorf("machine %d: %v %s, lost %v", i, err, a.Error, client.First(a.Lost))
			return
		}
		all[i] = a.NS
	})
	for _, c := range clients {
		c.Close(t)
	}
	return slices.Concat(all...)
}
