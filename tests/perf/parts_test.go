package perf

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
)

// spent is what a part took: time on the clock, and of CPUs.
type spent struct{ wall, cpu time.Duration }

// cpuTime is user and system time of this process so far.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// serverCPU is the time that the threads of another process have been running.
func serverCPU(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			t.Fatalf("%s: %q: %v", path, text, err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// parts are the rows of a table, in the order in which they were first measured.
type parts struct {
	names []string
	took  map[string][]spent
}

func (p *parts) add(name string, s spent) {
	if _, ok := p.took[name]; !ok {
		p.names = append(p.names, name)
	}
	p.took[name] = append(p.took[name], s)
}

// measure runs fn in this process.
func (p *parts) measure(t *testing.T, name string, fn func() error) {
	t.Helper()
	start, cpu := time.Now(), cpuTime(t)
	if err := fn(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	p.add(name, spent{time.Since(start), cpuTime(t) - cpu})
}

// table shows medians, and each as a multiple of the first row's.
func (p *parts) table() string {
	var out strings.Builder
	base := 0.0
	fmt.Fprintf(&out, "%-52s %9s %9s %9s\n", "", "wall, ms", "CPU, ms", "wall")
	for _, name := range p.names {
		var wall, cpu []float64
		for _, s := range p.took[name] {
			wall, cpu = append(wall, s.wall.Seconds()*1e3), append(cpu, s.cpu.Seconds()*1e3)
		}
		if base == 0 {
			base = median(wall)
		}
		fmt.Fprintf(&out, "%-52s %9.1f %9.1f %8.2fx\n", name, median(wall), median(cpu), median(wall)/base)
	}
	return out.String()
}

// scatteredSet chooses pages in runs of 1.4 on average, of any part of the image: what a Linux guest
// touches first. A run is followed by at least one page that is not in the set.
func (b *bench) scatteredSet() []uint64 {
	rnd := rand.New(rand.NewPCG(8, 9))
	gap := 1.4 * (float64(len(b.data))/float64(b.setPages) - 1)
	var runs [][]uint64
	for i := 0; i < len(b.data); {
		from := i
		for i++; i < len(b.data) && b.data[i] == b.data[i-1]+1 && rnd.Float64() < 1-1/1.4; i++ {
		}
		runs = append(runs, b.data[from:i])
		i += max(1, int(rnd.ExpFloat64()*(gap-0.5)+0.5))
	}
	rnd.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	set := slices.Concat(runs...)
	return set[:min(b.setPages, len(set))]
}

// TestPrefetchParts shows where the time of a prefetch goes: its parts, each alone, beside the whole
// and its peers, in one run. It asserts nothing about the figures.
//
//	go test ./tests/perf -run TestPrefetchParts -v -perf [-image FILE]
func TestPrefetchParts(t *testing.T) {
	cli.NeedFUSE(t)
	b := newBench(t)
	if *full {
		if err := touchHostMemory(4 << 30); err != nil {
			t.Logf("touch host memory: %v", err)
		}
	}
	store := filepath.Join(b.dir, "store")
	cli.OK(t, "import", store, b.image, "--name", "vm")
	for _, s := range []struct {
		name string
		set  []uint64
	}{{"runs of 1.4", b.scatteredSet()}, {"runs of 16", b.workingSet()}} {
		b.prefetchParts(store, s.name, s.set)
	}
}

func (b *bench) prefetchParts(store, name string, set []uint64) {
	b.setWorkingSet(store, set)
	raw := filepath.Join(b.dir, "set.raw")
	b.writeSet(raw, set)
	p := &parts{took: map[string][]spent{}}
	var frames []index.Piece
	for i := range b.rounds {
		b.round(name, i, func(t *testing.T) {
			b.partsOfPeers(t, p, raw, set)
			b.partsOfOpen(t, p, store)
			frames = b.partsOfRead(t, p, store)
			b.partsOfPush(t, p, frames)
		})
	}
	runs := 0
	for i := range frames {
		eachRun(&frames[i], func(uint64, []byte) error { runs++; return nil })
	}
	b.t.Logf("%d pages, %s, %d notifications; medians of %d rounds\n%s", len(set), name, runs, b.rounds,
		p.table())
}

func (b *bench) partsOfPeers(t *testing.T, p *parts, raw string, set []uint64) {
	t.Helper()
	chill(t, client.Start(t, nil), raw)
	buf, err := alignedBuffer(len(set) * image.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	p.measure(t, "peer: O_DIRECT read of the raw set", func() error { return readDirect(raw, buf) })
	cpu := cpuTime(t)
	_, all, err := reap(raw, set, b.pages)
	if err != nil {
		t.Logf("no figure of REAP: %v", err)
		return
	}
	p.add("peer: REAP, that read and UFFDIO_COPY", spent{all, cpuTime(t) - cpu})
}

// partsOfOpen measures an open that waits for the whole working set, the packs not in the page cache.
func (b *bench) partsOfOpen(t *testing.T, p *parts, store string) {
	t.Helper()
	m := cli.Mount(t, store)
	c := m.Client(t)
	chillPacks(t, c, store)
	cpu := serverCPU(t, m.Pid())
	a := c.Open(t, m.Path("vm/memory"), mapped)
	p.add("thaw: open of memory", spent{time.Duration(a.Nanos), serverCPU(t, m.Pid()) - cpu})
}

func chillPacks(t *testing.T, c *client.Client, store string) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(store, "packs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	chill(t, c, packs...)
}

// partsOfRead measures what comes before the push, and returns the decoded frames.
func (b *bench) partsOfRead(t *testing.T, p *parts, store string) []index.Piece {
	t.Helper()
	ctx, c := t.Context(), client.Start(t, nil)
	s, err := index.Open(ctx, store, index.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	chillPacks(t, c, store)
	var m *index.Image
	p.measure(t, "open of the image (page map, directories), cold", func() (err error) {
		m, err = s.OpenImage(ctx, "vm")
		return err
	})
	defer m.Close()
	feed := m.WorkingSetFeed()
	var few [pipelineGoroutines]index.Piece // as many as a restore has, used again and again
	read := func() error {
		return each(feed.Len(), 1, func(i int) error { return feed.Fetch(ctx, i, &few[0]) })
	}
	readAndDecode := func() error {
		return pipeline(feed.Len(),
			func(g, i int) error { return feed.Fetch(ctx, i, &few[g]) },
			func(g, _ int) error { return feed.Decode(&few[g]) })
	}
	p.measure(t, "all but the push: read, cold, and decode", readAndDecode)
	p.measure(t, "the same, cached", readAndDecode)
	p.measure(t, "read of the segment, cached", read)
	chillPacks(t, c, store)
	p.measure(t, "read of the segment, cold", read)
	frames := make([]index.Piece, feed.Len())
	err = each(len(frames), 1, func(i int) error { return index.ReadPiece(ctx, feed, i, &frames[i]) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range frames {
		for j, gfn := range frames[i].GFNs {
			b.right(t, gfn, frames[i].Pages[j*image.PageSize:][:image.PageSize])
		}
	}
	return frames
}

// right compares a page with the image.
func (b *bench) right(t *testing.T, gfn uint64, page []byte) {
	t.Helper()
	if b.bytes == nil {
		var err error
		if b.bytes, err = os.ReadFile(b.image); err != nil {
			t.Fatal(err)
		}
	}
	if string(page) != string(b.bytes[gfn*image.PageSize:][:image.PageSize]) {
		t.Fatalf("page %d has wrong bytes", gfn)
	}
}

// each calls fn for 0 to n-1, in the order in which goroutines become free.
func each(n, goroutines int, fn func(i int) error) error {
	return pipelined(n, goroutines, goroutines, func(int, int) error { return nil },
		func(_, i int) error { return fn(i) })
}

// pipelineGoroutines of the scheme of a restore: two do the second step, and one can be ahead.
const pipelineGoroutines = 3

// pipeline is the scheme of a restore: the first step in order and one at a time, two of the second at
// once. Both are given the number of the goroutine.
func pipeline(n int, first, second func(g, i int) error) error {
	return pipelined(n, pipelineGoroutines, 2, first, second)
}

func pipelined(n, goroutines, atOnce int, first, second func(g, i int) error) error {
	var mu sync.Mutex
	next := 0 // guarded by mu
	take := func(g int) (i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		if next >= n {
			return -1, nil
		}
		i, next = next, next+1
		return i, first(g, i)
	}
	workers := make(chan struct{}, atOnce)
	errs := make([]error, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for errs[g] == nil {
				i, err := take(g)
				if i < 0 {
					return
				}
				workers <- struct{}{}
				if errs[g] = err; err == nil {
					errs[g] = second(g, i)
				}
				<-workers
			}
		})
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// eachRun calls fn for the runs of neighbouring pages of a piece.
func eachRun(p *index.Piece, fn func(first uint64, pages []byte) error) error {
	for i := 0; i < len(p.GFNs); {
		n := 1
		for i+n < len(p.GFNs) && p.GFNs[i+n] == p.GFNs[i]+uint64(n) {
			n++
		}
		if err := fn(p.GFNs[i], p.Pages[i*image.PageSize:(i+n)*image.PageSize]); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// partsOfPush measures pushes of decoded frames into a file that nobody reads.
func (b *bench) partsOfPush(t *testing.T, p *parts, frames []index.Piece) {
	t.Helper()
	target := mountPushTarget(t, client.Start(t, nil), b.pages)
	push := func(node uint64, refused error) func(i int) error {
		return func(i int) error {
			return eachRun(&frames[i], func(first uint64, pages []byte) error {
				return target.store(node, first, pages, refused)
			})
		}
	}
	contiguous := func(i int) error {
		return target.store(ramNode, uint64(i)*framePages, frames[i].Pages, nil)
	}
	for _, part := range []struct {
		name       string
		goroutines int
		fn         func(int) error
	}{
		{"push, a notification a run, 1 goroutine", 1, push(ramNode, nil)},
		{"push, a notification a run, 2 goroutines", 2, push(ramNode, nil)},
		{"push, a notification a frame, 2 goroutines", 2, contiguous},
		{"a notification a run, of an unknown inode", 2, push(ramNode+1, unix.ENOENT)},
	} {
		target.empty(t)
		p.measure(t, part.name, func() error { return each(len(frames), part.goroutines, part.fn) })
	}
}

// framePages is how many pages a frame of a segment has, but the last.
const framePages = 256

// mountPushTarget mounts a target that a client has open.
func mountPushTarget(t *testing.T, c *client.Client, pages uint64) *pushTarget {
	t.Helper()
	mnt := t.TempDir()
	p, err := newPushTarget(mnt, int(pages)*image.PageSize)
	if err != nil {
		t.Skipf("no figures of pushes alone: %v", err)
	}
	go p.server.Serve()
	t.Cleanup(func() {
		c.Close(t)
		if err := p.close(mnt); err != nil {
			t.Error(err)
		}
	})
	c.Open(t, filepath.Join(mnt, "memory"), client.Map{NoMap: true})
	return p
}

// empty drops what was pushed.
func (p *pushTarget) empty(t *testing.T) {
	t.Helper()
	if st := p.server.InodeNotify(ramNode, 0, 0); !st.Ok() {
		t.Fatal(st)
	}
}
