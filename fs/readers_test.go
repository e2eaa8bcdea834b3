package fs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// What copies an image or looks at it is not a machine: its reads are refused as a working set, with its
// name, unless they are wanted all the same.
func TestRecordOfNoMachine(t *testing.T) {
	x := spec{Name: "a", Pages: 2048, Seed: 1, ZeroEvery: 4}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	comm := filepath.Base(self)
	comm = comm[:min(len(comm), 15)]
	for name, c := range map[string]struct {
		read func(c *proc, fd int)
		why  string
	}{
		"head": {func(c *proc, fd int) {
			c.do(request{Op: "pread", FD: fd, Len: PageSize})
			c.close(fd)
		}, "read 1 pages"},
		"file": {func(c *proc, fd int) {
			c.do(request{Op: "pread", FD: fd, Len: 1 << 20})
			c.close(fd)
		}, "pages in sequence"},
		"copy": {func(c *proc, fd int) { // still open, or for long
			c.do(request{Op: "readall", FD: fd, Len: 128 << 10, Spec: &x})
		}, "from end to end"},
		"sparse copy": {func(c *proc, fd int) { // as cp does
			c.do(request{Op: "readdata", FD: fd})
		}, "from end to end"},
	} {
		t.Run(name, func(t *testing.T) {
			b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
			p := b.client()
			c.read(p, p.open(b.path("a/memory"), unix.O_RDONLY))
			if !strings.HasSuffix(name, "copy") {
				eventually(t, "it is closed", func() bool { return b.InUse("a") == 0 })
				// A busy host may have taken longer than a reader has it open.
				ep := b.tree.entry("a").epoch.Load()
				ep.readers.released(ep.base.Add(time.Duration(ep.started.Load()) + time.Millisecond))
			}
			_, err := b.Record(t.Context(), "a", RecordOptions{})
			var no *RecordError
			if !errors.Is(err, ErrNotMachine) || !errors.As(err, &no) {
				t.Fatalf("record: %v", err)
			}
			if !strings.Contains(no.Why, c.why) || len(no.Readers) != 1 {
				t.Errorf("%v, %v", err, no.Readers)
			}
			if len(no.Readers) > 0 && (no.Readers[0].Command == "" || no.Readers[0].PID == 0) {
				t.Errorf("reader %+v, want %s", no.Readers, comm)
			}
			set, err := b.Record(t.Context(), "a", RecordOptions{Force: true})
			if err != nil || set.Pages() == 0 {
				t.Errorf("by force: %v", err)
			}
		})
	}
}

// What a machine could have read is a record.
func TestRecordOfMachine(t *testing.T) {
	x := spec{Name: "a", Pages: 2048, Seed: 1}
	for name, read := range map[string]func(c *proc, fd int){
		"a few pages, and it runs": func(c *proc, fd int) {
			c.do(request{Op: "touch", Map: c.mapFile(fd, x.Pages), GFNs: []uint64{7}, Spec: &x})
		},
		"in no order, for a moment": func(c *proc, fd int) {
			m := c.mapFile(fd, x.Pages)
			c.do(request{Op: "touch", Map: m, GFNs: scattered(x.Pages, 7), Spec: &x})
			c.do(request{Op: "unmap", Map: m})
			c.close(fd)
		},
		"all of it, page by page": func(c *proc, fd int) {
			c.do(request{Op: "touch", Map: c.mapFile(fd, x.Pages), GFNs: upTo(x.Pages), Spec: &x})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
			p := b.client()
			read(p, p.open(b.path("a/memory"), unix.O_RDONLY))
			if _, err := b.Record(t.Context(), "a", RecordOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// One reader in two is a machine: its reads count.
func TestDoubt(t *testing.T) {
	start := time.Now()
	page := &wss.Set{Runs: []wss.Run{{GFN: 0, Count: 1}}}
	var r readers
	r.opened(Reader{PID: 1, Command: "one"})
	if why := r.doubt(start, page); why != "" {
		t.Errorf("while it is open: %s", why)
	}
	r.released(start.Add(time.Millisecond))
	if why := r.doubt(start, page); !strings.Contains(why, "one (1)") {
		t.Errorf("one page, closed: %q", why)
	}
	r.opened(Reader{PID: 2, Command: "two"})
	r.released(start.Add(2 * time.Millisecond))
	if why := r.doubt(start, page); why != "" {
		t.Errorf("two of them: %s", why)
	}
	// What a short look reads ahead is answered out of order.
	var look readers
	look.opened(Reader{PID: 3, Command: "dd"})
	part := &wss.Set{}
	for _, first := range []uint64{8, 0, 24, 16, 40, 32} {
		part.Runs = append(part.Runs, wss.Run{GFN: first, Count: 8})
	}
	look.released(start.Add(time.Millisecond))
	if why := look.doubt(start, part); !strings.Contains(why, "48 pages in sequence") {
		t.Errorf("a part, read out of order: %q", why)
	}
	part.Runs[0].GFN = 500
	if why := look.doubt(start, part); why != "" {
		t.Errorf("pages here and there: %s", why)
	}
	var long readers
	long.opened(Reader{PID: 3})
	long.released(start.Add(briefly))
	if why := long.doubt(start, page); why != "" {
		t.Errorf("for a second: %s", why)
	}
	for i := range uint32(2 * maxReaders) {
		r.opened(Reader{PID: i})
	}
	if n := len(r.names()); n != maxReaders {
		t.Errorf("%d readers are kept", n)
	}
}

// Two processes read, each its own file: the machine's reads are the set, exact, and those of the copy are
// not. That the copy read a page first does not take it from the machine.
func TestRecordBesideCopy(t *testing.T) {
	x := spec{Name: "a", Pages: 2048, Seed: 1}
	b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
	p, cp := b.client(), b.client()
	m := p.mapFile(p.open(b.path("a/clones/x/memory"), unix.O_RDWR), x.Pages)
	p.do(request{Op: "touch", Map: m, GFNs: []uint64{2000, 3}, Spec: &x})
	cp.do(request{Op: "readall", FD: cp.open(b.path("a/memory"), unix.O_RDONLY), Len: 128 << 10, Spec: &x})
	p.do(request{Op: "touch", Map: m, GFNs: []uint64{7, 1000}, Spec: &x})
	set, err := b.Record(t.Context(), "a", RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]uint64{2000, 3, 7, 1000}, gfnsOf(set)); d != "" {
		t.Error(d)
	}
	if !strings.Contains(set.Way, "without 2048 pages that ") {
		t.Errorf("way: %s", set.Way)
	}
	if set, err = b.Record(t.Context(), "a", RecordOptions{Force: true}); err != nil || set.Pages() != x.Pages {
		t.Errorf("by force %v, %v", set, err)
	}
}

// A copy of the file that the machine has mapped brings pages that the machine then need not ask for.
func TestRecordUnderCopy(t *testing.T) {
	x := spec{Name: "a", Pages: 2048, Seed: 1}
	b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
	p, cp := b.client(), b.client()
	m := p.mapFile(p.open(b.path("a/memory"), unix.O_RDONLY), x.Pages)
	p.do(request{Op: "touch", Map: m, GFNs: []uint64{2000, 3}, Spec: &x})
	cp.do(request{Op: "readall", FD: cp.open(b.path("a/memory"), unix.O_RDONLY), Len: 128 << 10, Spec: &x})
	p.do(request{Op: "touch", Map: m, GFNs: []uint64{7, 1000}, Spec: &x})
	_, err := b.Record(t.Context(), "a", RecordOptions{})
	var no *RecordError
	if !errors.As(err, &no) || !strings.Contains(no.Why, "did not need to ask") {
		t.Errorf("record: %v", err)
	}
	// A look at a few pages does no such harm, and a reader of the kernel is none of them.
	few := []*readProc{{node: 1, trace: b.tree.entry("a").epoch.Load().procs.make()}}
	few[0].read(0, fewPages, 0)
	machine := &readProc{node: 1, trace: b.tree.entry("a").epoch.Load().procs.make()}
	machine.read(500, 1, 0)
	if _, why := b.tree.entry("a").epoch.Load().judge([]*readProc{machine}, few, 1000, time.Now()); why != "" {
		t.Errorf("a short look: %s", why)
	}
}

// Which READs are a copy's, by their order alone.
func TestSequential(t *testing.T) {
	recorder := newEpoch(1<<20, time.Hour, false, true).procs.make
	for name, c := range map[string]struct {
		reads [][2]uint64 // first page, and count
		want  bool
	}{
		"nothing":             {nil, false},
		"one page":            {[][2]uint64{{7, 1}}, false},
		"from the start":      {[][2]uint64{{0, 32}, {32, 32}, {64, 32}}, true},
		"overtaking":          {[][2]uint64{{0, 32}, {64, 32}, {32, 32}, {96, 32}, {160, 32}, {128, 32}}, true},
		"a part":              {[][2]uint64{{5000, 32}, {5032, 32}, {5064, 32}}, true},
		"here and there":      {[][2]uint64{{5000, 32}, {200, 32}, {9000, 32}, {4000, 32}}, false},
		"downwards, far away": {[][2]uint64{{9000, 16}, {8000, 16}, {7000, 16}, {6000, 16}}, false},
	} {
		p := &readProc{trace: recorder()}
		for _, r := range c.reads {
			p.read(r[0], r[1], 0)
		}
		if got := p.sequential(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// More processes and threads than are kept are counted together, and none is taken for another one.
func TestReadProcs(t *testing.T) {
	p := newEpoch(1<<20, time.Hour, false, true)
	p.start(p.base)
	me := uint32(os.Getpid())
	for i := range uint64(100) {
		p.read(source{me, i}, i, 1, false, p.base.Add(time.Millisecond))
		p.read(source{me, i}, 1000+i, 1, false, p.base.Add(2*time.Millisecond))
	}
	all := p.procs.all()
	if len(all) != maxReadProcs || all[0].PID != me || all[0].trace.Pages() != 2 || all[0].Command == "" {
		t.Errorf("%d processes, the first %v with %d pages", len(all), all[0], all[0].trace.Pages())
	}
	last := all[maxReadProcs-1]
	if n := last.trace.Pages(); n != 2*(100-maxReadProcs+1) || last.PID != 0 {
		t.Errorf("%v has %d pages", last, n)
	}
	set := p.set(all, p.base.Add(time.Second))
	if set.Pages() != 200 || set.Runs[0].GFN != 0 {
		t.Errorf("merged: %d pages, %+v", set.Pages(), set.Runs[0])
	}
	if err := set.Validate(1 << 20); err != nil {
		t.Error(err)
	}
	if who := processOf(2); who != (Reader{Command: "the kernel"}) && who.PID != 2 {
		t.Errorf("a thread of the kernel is %v", who)
	}
}

// What is read ahead is refused while reads are recorded, as long as its reader does not want it all.
func TestRefuses(t *testing.T) {
	p := newEpoch(1<<20, time.Second, false, true)
	at := func(ms int) time.Time { return p.base.Add(time.Duration(ms) * time.Millisecond) }
	by := source{uint32(os.Getpid()), 1}
	if p.refuses(by, 32, at(0)) {
		t.Error("before the window")
	}
	p.start(at(1))
	if p.refuses(source{0, 1}, 32, at(2)) {
		t.Error("of a reader that is not known")
	}
	for i := range 100 {
		if !p.refuses(by, 32, at(2)) {
			t.Fatalf("READ %d is answered, although little of what was refused was wanted", i)
		}
		p.read(by, uint64(i), 1, true, at(3))
	}
	copies := source{uint32(os.Getpid()), 2}
	refused := uint64(0)
	for first := uint64(0); p.refuses(copies, 32, at(4)); first += 32 {
		refused += 32
		for i := range uint64(32) {
			p.read(copies, first+i, 1, true, at(4))
		}
	}
	if refused != triedPages {
		t.Errorf("a copy was refused %d pages", refused)
	}
	if p.refuses(by, 32, at(1001)) {
		t.Error("after the window")
	}
	p.spoil(at(500))
	if p.refuses(by, 32, at(600)) {
		t.Error("of a record that is spoiled")
	}
}

// Who maps the file is a machine, and then nobody else is, however it reads. Without one, order decides.
func TestSplit(t *testing.T) {
	recorder := newEpoch(1<<20, time.Hour, false, true).procs.make
	reading := func(pid uint32, pages ...uint64) *readProc {
		p := &readProc{Reader: Reader{PID: pid}, trace: recorder()}
		for _, page := range pages {
			p.read(page, 32, 0)
		}
		return p
	}
	vmm, copier := reading(1, 5000, 100, 9000), reading(2, 0, 32, 64)
	parts, kernel := reading(3, 7000, 200, 3000), reading(0, 800, 9000, 4000)
	for name, c := range map[string]struct {
		maps map[uint32]bool
		want []*readProc
	}{
		"one maps":       {map[uint32]bool{1: true}, []*readProc{vmm, kernel}},
		"a copy maps":    {map[uint32]bool{1: true, 2: true}, []*readProc{vmm, copier, kernel}},
		"nobody is seen": {nil, []*readProc{vmm, parts, kernel}},
	} {
		machines, copies := split([]*readProc{vmm, copier, parts, kernel}, c.maps)
		if !slices.Equal(machines, c.want) || len(machines)+len(copies) != 4 {
			t.Errorf("%s: %v are machines, %v copies", name, machines, copies)
		}
	}
}
