package scan

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss/pagetable"
)

// os is the kernel of a machine: processes with user pages below a kernel half that they share.
type osOptions struct {
	levels    int
	isolated  bool // two tables a process: the kernel's at an even frame, the user's beside it
	noKernel  bool // no upper half: all of a space is its own
	processes int
	userPages int
	large     bool // some of the user's and the kernel's memory in 2 MiB pages
	cpus      int
	changes   bool // processes end and begin, pages are unmapped and mapped
	direct    bool // the kernel maps all of memory, as Linux does
}

type process struct {
	root, user uint64 // user: the table that is used in user mode
	va         []uint64
	large      []uint64
	code       uint64
}

type testOS struct {
	*machine
	o       osOptions
	kernel  []uint64 // addresses
	half    uint64   // a table whose upper half is the kernel's
	procs   []*process
	nextVA  uint64
	running []*process // by vCPU
}

// kernelVA is where the kernel lives: the upper half of each mode.
func (o *testOS) kernelVA(n uint64) uint64 {
	if o.o.levels == 5 {
		return 0xff00_0000_0000_0000 + n
	}
	return 0xffff_8000_0000_0000 + n
}

func newOS(m *machine, o osOptions) *testOS {
	k := &testOS{machine: m, o: o}
	if !o.noKernel {
		k.half = k.takeTable()
		for i := range uint64(40) {
			// Spread over entries of the uppermost table, as vmalloc, direct map and text are.
			va := k.kernelVA(i%8<<(frameShift+9*(o.levels-1)) + i*3<<frameShift)
			k.mapPage(k.half, o.levels, va, k.take(), levelPT, 0)
			k.kernel = append(k.kernel, va)
		}
		if o.large {
			va := k.kernelVA(9 << (frameShift + 9*(o.levels-1)))
			k.mapPage(k.half, o.levels, va, k.takeLarge(), levelPD, 0)
			k.kernel = append(k.kernel, va+5<<frameShift)
		}
	}
	if o.direct {
		for _, r := range m.regions { // of 1 GiB at most in these tests
			va := k.kernelVA(12<<(frameShift+9*(o.levels-1)) + r.GFN<<frameShift)
			k.mapPage(k.half, o.levels, va, r.GFN, levelPDPT, 0)
		}
	}
	for range o.processes {
		k.procs = append(k.procs, k.newProcess())
	}
	for i := range max(o.cpus, 1) {
		k.cpus = append(k.cpus, &vcpu{levels: o.levels})
		k.cpus[i].forget()
		k.running = append(k.running, nil)
		k.schedule(i)
	}
	k.work = func(time.Duration) { k.step() }
	return k
}

func (k *testOS) newProcess() *process {
	p := &process{}
	if k.o.isolated {
		p.root = k.takePair()
		p.user = p.root + 1
		k.tables[p.root], k.tables[p.user] = true, true
	} else {
		p.root = k.takeTable()
		p.user = p.root
	}
	*k.frame(p.root), *k.frame(p.user) = [tableBytes]byte{}, [tableBytes]byte{}
	if k.half != 0 {
		copy(k.frame(p.root)[tableBytes/2:], k.frame(k.half)[tableBytes/2:])
	}
	if k.o.isolated { // of the kernel's half, the user's table has the entry code
		setEntry(k.frame(p.user)[:], upperHalf, entryAt(k.frame(p.root)[:], upperHalf))
	}
	for range k.o.userPages {
		k.addPage(p)
	}
	if k.o.large {
		va := k.userVA() &^ (1<<21 - 1)
		k.nextVA += 2 << 21
		k.mapPage(p.root, k.o.levels, va, k.takeLarge(), levelPD, pagetable.User)
		p.large = append(p.large, va)
	}
	p.code = p.va[0]
	k.isolate(p)
	return p
}

// userVA is an address that was not used before.
func (k *testOS) userVA() uint64 {
	k.nextVA += uint64(1+k.rng.IntN(3)) << frameShift
	if k.rng.IntN(20) == 0 {
		k.nextVA += 1 << 30
	}
	return k.nextVA % (1 << 46)
}

func (k *testOS) addPage(p *process) {
	va := k.userVA()
	k.mapPage(p.root, k.o.levels, va, k.take(), levelPT, pagetable.User)
	p.va = append(p.va, va)
	k.isolate(p)
}

// isolate brings the user's view of the lower half in line with the kernel's, which has no-execute
// set in it.
func (k *testOS) isolate(p *process) {
	if !k.o.isolated {
		return
	}
	for i := range upperHalf {
		entry := entryAt(k.frame(p.root)[:], i)
		if entry == 0 {
			continue
		}
		old := entryAt(k.frame(p.user)[:], i)
		setEntry(k.frame(p.root)[:], i, entry|pagetable.NX)
		setEntry(k.frame(p.user)[:], i, entry&^(pagetable.NX|pagetable.Accessed)|old&pagetable.Accessed)
	}
}

// schedule gives a vCPU a process, in user mode or in the kernel.
func (k *testOS) schedule(i int) {
	p := k.procs[k.rng.IntN(len(k.procs))]
	k.running[i] = p
	c := k.cpus[i]
	if k.rng.IntN(2) == 0 {
		c.switchTo(p.user)
	} else {
		c.switchTo(p.root)
	}
	c.rip = p.code
}

// step is what happens in a moment: each vCPU touches a few pages, now and then a process is
// changed for another, ends, begins, maps and unmaps.
func (k *testOS) step() {
	for i, c := range k.cpus {
		if c.halted {
			continue
		}
		if k.rng.IntN(10) == 0 {
			k.schedule(i)
		}
		if k.o.changes {
			k.change(i)
		}
		p := k.running[i]
		for range k.rng.IntN(6) {
			k.touch(c, p.va[k.rng.IntN(len(p.va))])
		}
		if len(p.large) > 0 && k.rng.IntN(50) == 0 {
			k.touch(c, p.large[0]+uint64(k.rng.IntN(512))<<frameShift)
		}
		if c.root == p.root && len(k.kernel) > 0 {
			k.touch(c, k.kernel[k.rng.IntN(len(k.kernel))])
		}
	}
}

// change does what a kernel does all the time.
func (k *testOS) change(i int) {
	switch p := k.running[i]; k.rng.IntN(60) {
	case 0:
		k.procs = append(k.procs, k.newProcess())
	case 1:
		if n := k.rng.IntN(len(k.procs)); len(k.procs) > 2 && !slices.Contains(k.running, k.procs[n]) {
			k.exit(k.procs[n])
			k.procs = slices.Delete(k.procs, n, n+1)
		}
	case 2, 3, 4:
		k.addPage(p)
	case 5, 6, 7:
		if n := 1 + k.rng.IntN(len(p.va)-1); len(p.va) > 10 { // not the code
			k.unmapAll(p, p.va[n])
			p.va = slices.Delete(p.va, n, n+1)
		}
	}
}

func (k *testOS) unmapAll(p *process, va uint64) {
	k.unmap(p.root, k.o.levels, va)
	if p.user != p.root {
		k.unmap(p.user, k.o.levels, va)
	}
}

// exit frees what a process has; its frames are soon something else.
func (k *testOS) exit(p *process) {
	for page, roots := range k.touched { // with the table go the bits in it
		if roots[p.root] || roots[p.user] {
			k.lost[page] = true
		}
	}
	var free func(table uint64, level, end int)
	free = func(table uint64, level, end int) {
		k.lose(table)
		for i := range end {
			entry := entryAt(k.frame(table)[:], i)
			target := entry & pagetable.AddressMask >> frameShift
			switch {
			case entry&pagetable.Present == 0:
			case level == levelPT:
				k.lose(target)
				k.reuse(target)
			default:
				free(target, level-1, entries)
			}
		}
		delete(k.tables, table)
		k.reuse(table)
	}
	if p.user != p.root {
		k.lose(p.user)
		delete(k.tables, p.user)
		k.reuse(p.user)
	}
	free(p.root, k.o.levels, upperHalf)
}

// reuse makes a frame data: its old content (nobody cleans memory before it is needed), with some
// of the words of a text, or of pointers, or one that looks like an entry.
func (k *testOS) reuse(gfn uint64) {
	f := k.frame(gfn)
	old := *f
	switch k.rng.IntN(3) {
	case 0:
		for i := range f {
			f[i] = byte(k.rng.Uint32())
		}
	case 1:
		for i := range k.rng.IntN(entries) {
			setEntry(f[:], i, k.kernelVA(k.rng.Uint64N(1<<40)|1))
		}
	case 2:
		setEntry(f[:], k.rng.IntN(entries), 0x0000_7f12_3456_7025) // looks present and accessed
	}
	k.data[gfn] = *f != old
	k.free = append(k.free, gfn)
	k.rng.Shuffle(len(k.free), func(i, j int) { k.free[i], k.free[j] = k.free[j], k.free[i] })
}

func newTables(t *testing.T, m *machine, o TableOptions) *Tables {
	t.Helper()
	o.Clock = m
	src, err := NewTables(m, o)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// low and high are RAM with a hole between, which the image leaves out; the larger one has room for
// large pages.
var (
	low    = Region{GFN: 0, Count: 1000, Page: 0}
	high   = Region{GFN: 1 << 20, Count: 2000, Page: 1000}
	higher = Region{GFN: 1 << 20, Count: 11_000, Page: 1000}
)

func TestSweepAgainstLog(t *testing.T) {
	for _, c := range []struct {
		name string
		o    osOptions
	}{
		{"one space without a kernel", osOptions{levels: 4, noKernel: true, processes: 1,
			userPages: 300}},
		{"one process", osOptions{levels: 4, processes: 1, userPages: 300}},
		{"processes", osOptions{levels: 4, processes: 8, userPages: 100, cpus: 2}},
		{"5 levels", osOptions{levels: 5, processes: 5, userPages: 100, cpus: 2}},
		{"isolated", osOptions{levels: 4, isolated: true, processes: 6, userPages: 80, cpus: 2}},
		{"isolated, 5 levels", osOptions{levels: 5, isolated: true, processes: 3, userPages: 80}},
		{"processes that come and go", osOptions{levels: 4, processes: 6, userPages: 50, cpus: 2,
			changes: true}},
		{"isolated ones that come and go", osOptions{levels: 4, isolated: true, processes: 5,
			userPages: 40, cpus: 2, changes: true}},
		{"large pages", osOptions{levels: 4, large: true, processes: 3, userPages: 60, cpus: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(4) {
				m := newMachine(t, seed, low, high)
				if c.o.large {
					m = newMachine(t, seed, low, higher)
				}
				k := newOS(m, c.o)
				src := newTables(t, m, TableOptions{TestTime: 50 * time.Millisecond})
				m.Sleep(t.Context(), 20*time.Millisecond)
				for i := range 15 {
					alive := map[uint64]bool{}
					for gfn, s := range src.spaces {
						alive[gfn] = s.alive && !s.old
					}
					s, err := src.Sweep(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if i == 0 {
						// The first one tells nothing; processes that began meanwhile come to light later.
						maps.Copy(m.early, m.cut())
					} else {
						m.sameAsLog(s, func(root uint64) bool { return alive[root] })
					}
					m.Sleep(t.Context(), time.Duration(1+m.rng.IntN(8))*time.Millisecond)
				}
				if n := src.Counts(); n.Malformed > 0 || n.Truncated > 0 ||
					!c.o.changes && n.Refused > 0 {
					t.Errorf("counts %+v", n)
				}
				want := len(k.procs)
				if c.o.isolated {
					want *= 2
				}
				roots, complete := src.Roots()
				if !c.o.changes && (complete == c.o.noKernel || len(roots) < want) {
					t.Errorf("roots %v of %d, complete: %v", roots, want, complete)
				}
				if !c.o.changes && !c.o.noKernel && src.Counts().Spaces < want {
					t.Errorf("%d spaces were found of %d", src.Counts().Spaces, want)
				}
			}
		})
	}
}
