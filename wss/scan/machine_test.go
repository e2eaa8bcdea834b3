package scan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// machine is a guest of the tests: memory, page tables made by a kernel of sorts, and vCPUs that go
// through them as the architecture says, with TLBs and caches of directory entries. It is the clock
// too: time passes when somebody waits, and then the guest works. It writes down what it touches.
type machine struct {
	t       *testing.T
	rng     *rand.Rand
	regions []Region
	ram     ram
	mem     map[uint64]*[tableBytes]byte // by frame; what is not there is zeros
	tables  map[uint64]bool              // frames that are page tables
	data    map[uint64]bool              // frames that were page tables and have other content now
	free    []uint64
	runs    []uint64 // aligned stretches of 512 frames that are kept for large pages
	cpus    []*vcpu
	now     time.Time
	work    func(d time.Duration) // what the guest does when it is let

	running int           // pauses that nobody took back, negated
	pauses  int           // how often it was paused
	pause   time.Duration // what it takes to pause
	flushes []Flush
	// pathologies
	noDirectoryBits bool // directories never get their bit
	present         *wss.Bitmap

	// touched are pages of the image that were touched since cut was called, and through which
	// uppermost tables.
	touched map[uint64]map[uint64]bool
	coarse  map[uint64]bool // pages of 2 MiB pages that were touched
	lost    map[uint64]bool // touched, but the guest took the entry away
	early   map[uint64]bool // touched through a table that was not known then: comes to light later
}

type vcpu struct {
	root   uint64
	levels int
	rip    uint64
	halted bool
	tlb    map[uint64]bool // pages (va>>12), of this root
	dirs   map[dirKey]bool
}

type dirKey struct {
	level int
	slot  uint64 // va >> the level's shift
}

const (
	levelPT, levelPD, levelPDPT = 1, 2, 3

	// Bits of control registers of a vCPU in 64-bit mode.
	cr0Paging = 1 << 31
	cr4PAE    = 1 << 5
	cr4LA57   = 1 << 12
	eferLMA   = 1 << 10
	eferNXE   = 1 << 11
)

func entryAt(table []byte, i int) uint64 { return binary.LittleEndian.Uint64(table[i*8:]) }

func setEntry(table []byte, i int, v uint64) { binary.LittleEndian.PutUint64(table[i*8:], v) }

// slot is the number of the entry for a linear address in a table of a level.
func slot(addr uint64, level int) int { return int(addr >> (frameShift + 9*(level-1)) % entries) }

func newMachine(t *testing.T, seed uint64, regions ...Region) *machine {
	m, err := newRAM(regions)
	if err != nil {
		t.Fatal(err)
	}
	g := &machine{t: t, early: map[uint64]bool{}, rng: rand.New(rand.NewPCG(seed, 7)),
		regions: regions, ram: m,
		mem: map[uint64]*[tableBytes]byte{}, tables: map[uint64]bool{},
		data: map[uint64]bool{},
		now:  time.Unix(1_000_000, 0), pause: 100 * time.Microsecond}
	for _, r := range regions {
		for gfn := max(r.GFN, 1); gfn < r.GFN+r.Count; gfn++ { // frame 0 is no user's
			const large = pagetable.Pages2M
			if m.pages > 10_000 && gfn%large == 0 && gfn+large <= r.GFN+r.Count && len(g.runs) < 6 {
				g.runs = append(g.runs, gfn)
				gfn += pagetable.Pages2M - 1
				continue
			}
			g.free = append(g.free, gfn)
		}
	}
	g.rng.Shuffle(len(g.free), func(i, j int) { g.free[i], g.free[j] = g.free[j], g.free[i] })
	g.cut()
	g.flushes = []Flush{g.works("flush")}
	return g
}

// works is a way to flush that does.
func (g *machine) works(name string) Flush {
	return Flush{Name: name, Do: func() error {
		g.needPause()
		g.now = g.now.Add(time.Millisecond)
		for _, c := range g.cpus {
			c.forget()
		}
		return nil
	}}
}

// idle is a way to flush that does nothing.
func (g *machine) idle(name string) Flush {
	return Flush{Name: name, Do: func() error { g.needPause(); return nil }}
}

func (c *vcpu) forget() { c.tlb, c.dirs = map[uint64]bool{}, map[dirKey]bool{} }

// cut begins a new log, and returns which pages were in the old one.
func (g *machine) cut() map[uint64]bool {
	old := map[uint64]bool{}
	for page := range g.touched {
		old[page] = true
	}
	g.touched = map[uint64]map[uint64]bool{}
	g.coarse, g.lost = map[uint64]bool{}, map[uint64]bool{}
	return old
}

func (g *machine) needPause() {
	if g.running >= 0 {
		g.t.Error("the guest runs")
	}
}

// The interface that is tested with it.

func (g *machine) RAM() []Region    { return g.regions }
func (g *machine) Flushes() []Flush { return g.flushes }

func (g *machine) Pause(context.Context) error {
	g.running--
	g.pauses++
	g.now = g.now.Add(g.pause)
	return nil
}

func (g *machine) Resume() error {
	g.running++
	return nil
}

func (g *machine) CPUs() ([]CPU, error) {
	g.needPause()
	var all []CPU
	for i, c := range g.cpus {
		r := CPU{CR0: cr0Paging | 1, CR3: c.root<<frameShift | uint64(i+1), CR4: cr4PAE,
			EFER: eferLMA | eferNXE, RIP: c.rip, Halted: c.halted}
		if c.levels == 5 {
			r.CR4 |= cr4LA57
		}
		all = append(all, r)
	}
	return all, nil
}

func (g *machine) ReadAt(p []byte, off int64) (int, error) {
	if g.running < 0 {
		g.now = g.now.Add(time.Microsecond)
	}
	for n := 0; n < len(p); {
		at := uint64(off) + uint64(n)
		gfn, in := at>>frameShift, at%tableBytes
		page, ok := g.ram.page(gfn)
		if !ok || g.present != nil && len(p) > tableBytes && !g.present.Has(page) {
			g.t.Errorf("a read of %d bytes at %#x, where nothing is", len(p), off)
			return 0, errors.New("nothing there")
		}
		if f := g.mem[gfn]; f != nil {
			n += copy(p[n:], f[in:])
			continue
		}
		rest := p[n:][:min(len(p)-n, int(tableBytes-in))]
		clear(rest)
		n += len(rest)
	}
	return len(p), nil
}

// WriteAt sees to it that nothing is changed but access bits in page tables.
func (g *machine) WriteAt(p []byte, off int64) (int, error) {
	g.needPause()
	gfn := uint64(off) >> frameShift
	if len(p) != tableBytes || off%tableBytes != 0 {
		g.t.Errorf("a write of %d bytes at %#x", len(p), off)
	}
	if g.data[gfn] || g.mem[gfn] == nil {
		g.t.Errorf("frame %d is no page table, and is written to", gfn)
	}
	for i := range entries {
		if gone := entryAt(g.frame(gfn)[:], i) ^ entryAt(p, i); gone&^pagetable.Accessed != 0 {
			g.t.Errorf("frame %d, entry %d: bits %#x changed", gfn, i, gone)
		}
	}
	return copy(g.frame(gfn)[:], p), nil
}

func (g *machine) Now() time.Time { return g.now }

// step is how long the guest works at a time.
const step = 100 * time.Microsecond

func (g *machine) Sleep(ctx context.Context, d time.Duration) error {
	if g.running != 0 {
		g.t.Errorf("waiting while the guest is paused %d times", -g.running)
	}
	for end := g.now.Add(max(d, step)); g.now.Before(end); g.now = g.now.Add(step) {
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, c := range g.cpus {
			if !c.halted {
				g.touch(c, c.rip)
			}
		}
		if g.work != nil {
			g.work(step)
		}
	}
	return ctx.Err()
}

// Memory and the kernel's part of the work.

func (g *machine) frame(gfn uint64) *[tableBytes]byte {
	f := g.mem[gfn]
	if f == nil {
		f = new([tableBytes]byte)
		g.mem[gfn] = f
	}
	return f
}

// take allocates a frame.
func (g *machine) take() uint64 {
	if len(g.free) == 0 {
		panic("the test needs a larger machine")
	}
	gfn := g.free[len(g.free)-1]
	g.free = g.free[:len(g.free)-1]
	delete(g.data, gfn)
	return gfn
}

// takeLarge allocates the frames of a 2 MiB page.
func (g *machine) takeLarge() uint64 {
	gfn := g.runs[0]
	g.runs = g.runs[1:]
	return gfn
}

// takePair allocates two frames side by side, the first of them even.
func (g *machine) takePair() uint64 {
	is := map[uint64]bool{}
	for _, gfn := range g.free {
		is[gfn] = true
	}
	for _, gfn := range g.free {
		if gfn%2 == 0 && is[gfn+1] {
			g.free = slices.DeleteFunc(g.free, func(f uint64) bool { return f&^1 == gfn })
			delete(g.data, gfn)
			delete(g.data, gfn+1)
			return gfn
		}
	}
	panic("the test needs a larger machine")
}

func (g *machine) takeTable() uint64 {
	gfn := g.take()
	g.tables[gfn] = true
	*g.frame(gfn) = [tableBytes]byte{}
	return gfn
}

// junk are bits of an entry that say nothing about its form.
func (g *machine) junk() uint64 {
	const software = 7<<9 | 0x7ff<<52
	return g.rng.Uint64() & (software | 1<<3 | 1<<4 | pagetable.Dirty)
}

// mapPage maps a page at va in a space, making tables as it goes. level 1: 4 KiB, 2: 2 MiB, …
func (g *machine) mapPage(root uint64, levels int, va, gfn uint64, level int, flags uint64) {
	table := root
	for l := levels; l > level; l-- {
		f := g.frame(table)
		entry := entryAt(f[:], slot(va, l))
		if entry&pagetable.Present == 0 {
			entry = g.takeTable()<<frameShift | pagetable.Present | 1<<1 | flags&pagetable.User | g.junk()
			setEntry(f[:], slot(va, l), entry)
		}
		table = entry & pagetable.AddressMask >> frameShift
	}
	entry := gfn<<frameShift | pagetable.Present | flags | g.junk()
	if level > levelPT {
		entry |= pagetable.Large
		if g.rng.IntN(2) == 0 {
			entry |= 1 << 12 // PAT
		}
	} else if g.rng.IntN(2) == 0 {
		entry |= 1 << 7 // PAT
	}
	if g.rng.IntN(2) == 0 {
		entry |= pagetable.NX
	}
	setEntry(g.frame(table)[:], slot(va, level), entry)
}

// unmap takes the entry of a 4 KiB page away. What its bit told is lost.
func (g *machine) unmap(root uint64, levels int, va uint64) {
	table := root
	for l := levels; l > levelPT; l-- {
		entry := entryAt(g.frame(table)[:], slot(va, l))
		if entry&pagetable.Present == 0 {
			return
		}
		g.lose(table)
		table = entry & pagetable.AddressMask >> frameShift
	}
	g.lose(table)
	f := g.frame(table)
	if entry := entryAt(f[:], slot(va, levelPT)); entry&pagetable.Present != 0 {
		g.lose(entry & pagetable.AddressMask >> frameShift)
	}
	setEntry(f[:], slot(va, levelPT), 0)
	for _, c := range g.cpus { // as the kernel must
		delete(c.tlb, va>>frameShift)
	}
}

func (g *machine) lose(gfn uint64) {
	if page, ok := g.ram.page(gfn); ok {
		g.lost[page] = true
	}
}

// touch is an access of a vCPU: nothing but a look into the TLB if the translation is there, else a
// walk that sets access bits.
func (g *machine) touch(c *vcpu, va uint64) {
	table, cached := c.root, true
	hit := c.tlb[va>>frameShift]
	for level := c.levels; ; level-- {
		f := g.frame(table)
		entry := entryAt(f[:], slot(va, level))
		if entry&pagetable.Present == 0 {
			panic(fmt.Sprintf("va %#x is not mapped at level %d", va, level))
		}
		isLeaf := level == levelPT || entry&pagetable.Large != 0
		key := dirKey{level, va >> (frameShift + 9*(level-1))}
		cached = cached && !isLeaf && c.dirs[key] // walks begin below what is cached
		if !hit && !cached {
			g.log(c.root, table, 1)
			if isLeaf || !g.noDirectoryBits {
				setEntry(f[:], slot(va, level), entry|pagetable.Accessed)
			}
			if !isLeaf {
				c.dirs[key] = true
			}
		}
		target := entry & pagetable.AddressMask >> frameShift
		if isLeaf {
			count := uint64(1) << (9 * (level - 1))
			g.log(c.root, target&^(count-1), count)
			c.tlb[va>>frameShift] = true
			return
		}
		table = target
	}
}

func (g *machine) log(root, gfn, count uint64) {
	g.ram.pagesOf(gfn, count, func(first, n uint64) {
		for page := first; page < first+n; page++ {
			if count > 1 {
				g.coarse[page] = true
				continue
			}
			if g.touched[page] == nil {
				g.touched[page] = map[uint64]bool{}
			}
			g.touched[page][root] = true
		}
	})
}

// switchTo loads another uppermost table. What is in the TLB is the old one's.
func (c *vcpu) switchTo(root uint64) {
	if c.root != root {
		c.root = root
		c.forget()
	}
}

func pagesOf(b *wss.Bitmap) map[uint64]bool {
	m := map[uint64]bool{}
	for first, count := range b.Runs() {
		for page := first; page < first+count; page++ {
			m[page] = true
		}
	}
	return m
}

// sameAsLog compares a sweep with the log since the last cut. known says whether it had to be known
// by then that a frame is an uppermost table.
func (g *machine) sameAsLog(s Sweep, known func(root uint64) bool) {
	g.t.Helper()
	fine, coarse := pagesOf(s.Fine), pagesOf(s.Coarse)
	for page, roots := range g.touched {
		for root := range roots {
			switch {
			case !known(root):
				g.early[page] = true
			case !fine[page] && !g.lost[page]:
				g.t.Fatalf("page %d (table: %v) was touched and is not found", page, g.isTable(page))
			}
		}
	}
	for page := range g.coarse {
		if !fine[page] && !coarse[page] {
			g.t.Fatalf("page %d of a large page was touched and is not found", page)
		}
	}
	for page := range fine {
		if g.touched[page] == nil && !g.early[page] {
			g.t.Fatalf("page %d (table: %v) is found and was not touched", page, g.isTable(page))
		}
	}
	for page := range coarse {
		if !g.coarse[page] {
			g.t.Fatalf("page %d of a large page is found and was not touched", page)
		}
	}
	g.cut()
}

func (g *machine) isTable(page uint64) bool {
	for gfn := range g.tables {
		if p, _ := g.ram.page(gfn); p == page {
			return true
		}
	}
	return false
}
