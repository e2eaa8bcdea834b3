package scan

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/pagetable"
)

// Two processes have no table in common in their lower halves. A page that looks like a process's
// uppermost table is one, or a copy of it elsewhere in memory, which must not be changed.
func TestCopiesAreLeftAlone(t *testing.T) {
	for _, seen := range []bool{false, true} {
		m := newMachine(t, 1, low, high)
		k := newOS(m, osOptions{levels: 4, processes: 3, userPages: 30})
		idle, copied := k.procs[2], m.take()
		k.procs = k.procs[:2] // it does not run
		k.schedule(0)
		if seen {
			m.cpus[0].switchTo(idle.root)
			m.cpus[0].rip = idle.code
			k.running[0] = idle
		}
		*m.frame(copied) = *m.frame(idle.root)
		for i := range upperHalf {
			if entry := entryAt(m.frame(copied)[:], i); entry != 0 {
				setEntry(m.frame(copied)[:], i, entry|pagetable.Accessed)
			}
		}
		m.data[copied] = true // WriteAt sees to it
		src := newTables(t, m, TableOptions{TestTime: shortTest})
		for range 6 {
			if _, err := src.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.Sleep(t.Context(), 3*time.Millisecond)
		}
		if src.Counts().Refused == 0 {
			t.Error("the copy was not met")
		}
		if _, ok := src.spaces[idle.root]; ok != seen {
			t.Errorf("the original is known: %v; a vCPU was seen to use it: %v", ok, seen)
		}
	}
}

// A dead process's uppermost table looks like a live one's, and its lower tables are data by now.
func TestTheDeadAreLeftAlone(t *testing.T) {
	for seed := range uint64(20) {
		m := newMachine(t, seed, low, high)
		k := newOS(m, osOptions{levels: 4, processes: 4, userPages: 30})
		dead := k.procs[3]
		k.procs = k.procs[:3]
		k.schedule(0)
		for i := range upperHalf { // all of its tables look used
			entry := entryAt(m.frame(dead.root)[:], i)
			if entry == 0 {
				continue
			}
			setEntry(m.frame(dead.root)[:], i, entry|pagetable.Accessed)
			// What they are now passes for a table.
			f := m.frame(entry & pagetable.AddressMask >> frameShift)
			*f = [tableBytes]byte{}
			setEntry(f[:], m.rng.IntN(entries), m.rng.Uint64N(1000)<<frameShift|0x67)
			m.data[entry&pagetable.AddressMask>>frameShift] = true
		}
		src := newTables(t, m, TableOptions{TestTime: shortTest})
		for range 6 {
			if _, err := src.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.Sleep(t.Context(), 3*time.Millisecond)
		}
		if s := src.spaces[dead.root]; s.alive {
			t.Error("a dead one came to life")
		}
	}
}

// Where vCPUs do not set the bits of directories, pruning would find nothing.
func TestDirectoriesWithoutBits(t *testing.T) {
	m := newMachine(t, 1, low, high)
	newOS(m, osOptions{levels: 4, processes: 1, userPages: 100})
	m.noDirectoryBits = true
	src := newTables(t, m, TableOptions{TestTime: shortTest})
	for i := range 10 {
		s, err := src.Sweep(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for page := range m.touched {
			if i > 0 && !m.isTable(page) && !s.Fine.Has(page) {
				t.Fatalf("sweep %d: page %d was touched and is not found", i, page)
			}
		}
		m.cut()
		m.Sleep(t.Context(), 5*time.Millisecond)
	}
	if c := src.Counts(); !src.distrust || c.Pruned > 0 {
		t.Errorf("distrust %v, counts %+v", src.distrust, c)
	}
}

// What the host says was never there is neither searched nor counted for the bit of a large page.
func TestPresence(t *testing.T) {
	m := newMachine(t, 1, low, higher)
	k := newOS(m, osOptions{levels: 4, processes: 2, userPages: 30, large: true})
	va := k.procs[0].large[0]
	k.work = func(d time.Duration) {
		k.step()
		for _, c := range k.cpus {
			if c.root == k.procs[0].root {
				k.touch(c, va+7<<frameShift)
			}
		}
	}
	present := wss.NewBitmap(m.ram.pages)
	for gfn := range m.mem {
		page, _ := m.ram.page(gfn)
		present.Set(page)
	}
	m.present = present // reading anything else in bulk is an error
	guest := &knowing{m}
	src, err := NewTables(guest, TableOptions{TestTime: shortTest, Clock: m})
	if err != nil {
		t.Fatal(err)
	}
	coarse := uint64(0)
	for range 10 {
		s, err := src.Sweep(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		coarse += s.Coarse.Count()
		m.Sleep(t.Context(), 5*time.Millisecond)
	}
	if c := src.Counts(); coarse > 0 || c.Large == 0 || c.Spaces != 2 {
		t.Errorf("%d pages that are not there, counts %+v", coarse, c)
	}
}

// knowing is a machine that is asked what is present.
type knowing struct{ *machine }

func (k *knowing) Present() (*wss.Bitmap, error) { return k.present, nil }

func TestCoarsest(t *testing.T) {
	const most = pagetable.Pages2M
	for coarsest, want := range map[uint64]uint64{0: most, 1: 0, most: most} {
		m := newMachine(t, 1, low, higher)
		root := m.takeTable()
		m.mapPage(root, 4, 0x5000, m.take(), levelPT, pagetable.User)
		m.mapPage(root, 4, 2<<21, m.takeLarge(), levelPD, pagetable.User)
		m.mapPage(root, 4, 3<<30, 0, levelPDPT, 0) // the first GiB, all of low
		m.cpus = []*vcpu{{root: root, levels: 4, rip: 0x5000}}
		m.cpus[0].forget()
		m.work = func(time.Duration) {
			m.touch(m.cpus[0], 2<<21)
			m.touch(m.cpus[0], 3<<30)
		}
		src := newTables(t, m, TableOptions{Coarsest: coarsest, TestTime: shortTest})
		for range 2 {
			s, err := src.Sweep(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Coarse.Count(); got != want {
				t.Errorf("coarsest %d: %d pages, want %d", coarsest, got, want)
			}
			m.Sleep(t.Context(), step)
		}
		if src.Counts().TooCoarse == 0 {
			t.Error("the page of 1 GiB does not show up")
		}
	}
}

func TestTooManyTables(t *testing.T) {
	m, _ := oneProcess(t, 1)
	src := newTables(t, m, TableOptions{MaxTables: 7, TestTime: shortTest})
	if _, err := src.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := src.Counts(); c.Truncated == 0 || c.Tables != 7 {
		t.Errorf("counts %+v", c)
	}
}

func TestBadRAM(t *testing.T) {
	for _, regions := range [][]Region{
		nil,
		{{GFN: 0, Count: 0}},
		{{GFN: 0, Count: 10}, {GFN: 9, Count: 2}},
		{{GFN: 1 << 63, Count: 1 << 63}},
		{{GFN: ^uint64(0), Count: 1}},
		{{Page: ^uint64(0), Count: 1}},
	} {
		if _, err := NewTables(&machine{t: t, regions: regions}, TableOptions{}); err == nil {
			t.Errorf("%v is taken", regions)
		}
	}
}

// raw is a guest whose memory is whatever it is, with a vCPU that executes nothing.
type raw struct {
	*machine
	cpu CPU
}

func (r *raw) CPUs() ([]CPU, error) { r.needPause(); return []CPU{r.cpu}, nil }

// FuzzGarbage walks whatever is in memory as page tables. It must end, change nothing but access
// bits, and read each table once.
func FuzzGarbage(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 8 {
		seed := make([]byte, 64)
		for i := range seed {
			seed[i] = byte(rng.Uint32())
		}
		f.Add(seed, uint64(rng.Uint32()))
	}
	f.Add([]byte("\x67\x10\x00\x00\x00\x00\x00\x00\x67\x20\x00\x00\x00\x00\x00\x00"), uint64(0x1000))
	f.Fuzz(func(t *testing.T, text []byte, cr3 uint64) {
		const frames = 64
		m := newMachine(t, 1, Region{GFN: 0, Count: frames / 2},
			Region{GFN: 40, Count: frames / 2, Page: frames / 2})
		for gfn := range uint64(frames + 10) {
			if _, ok := m.ram.page(gfn); !ok {
				continue
			}
			page := m.frame(gfn)
			for i := 0; i+8 <= len(text); i += 8 { // spread over all tables
				entry := binary.LittleEndian.Uint64(text[i:])
				if i%16 == 0 {
					const mask = pagetable.AddressMask
					entry = entry&^mask | entry&mask%(frames<<frameShift)&mask
				}
				slot := int(entry>>13+gfn*7+uint64(i)) % entries
				setEntry(page[:], slot, entry)
			}
		}
		cpu := CPU{CR0: cr0Paging, CR3: cr3 % (frames << frameShift), CR4: cr4PAE, EFER: eferLMA,
			RIP: cr3 * 4097}
		if len(text)%2 == 0 {
			cpu.EFER |= eferNXE
		}
		if len(text)%3 == 0 {
			cpu.CR4 |= cr4LA57
		}
		guest := &raw{m, cpu}
		src, err := NewTables(guest, TableOptions{TestTime: time.Millisecond, Clock: m})
		if err != nil {
			t.Fatal(err)
		}
		w := src.newWalk(true)
		_, err = src.paused(t.Context(), func() error { return src.clear(w, &m.flushes[0]) })
		if err != nil {
			if !errors.Is(err, ErrNoTables) { // CR3 may point into the hole
				t.Fatal(err)
			}
			return
		}
		if w.counts.Tables != uint64(len(w.tables)) || len(w.tables) > frames {
			t.Errorf("%d tables read, of %d, in %d frames", w.counts.Tables, len(w.tables), frames)
		}
	})
}

// slow is a machine whose memory takes time to read while it runs.
type slow struct{ *machine }

func (s *slow) ReadAt(p []byte, off int64) (int, error) {
	if s.running == 0 && len(p) > tableBytes {
		s.now = s.now.Add(time.Duration(len(p)/tableBytes) * time.Microsecond)
	}
	return s.machine.ReadAt(p, off)
}

// All of memory is searched at first, then no faster than searching may cost.
func TestSearchIsPaced(t *testing.T) {
	m := newMachine(t, 1, low, high)
	newOS(m, osOptions{levels: 4, processes: 3, userPages: 30})
	src, err := NewTables(&slow{m}, TableOptions{TestTime: shortTest, Clock: m})
	if err != nil {
		t.Fatal(err)
	}
	frames := m.ram.frames()
	for _, c := range []struct {
		wait time.Duration
		want func(searched uint64) bool
	}{
		{0, func(n uint64) bool { return n == frames }},
		{10 * time.Millisecond, func(n uint64) bool { return n > 0 && n < frames }},
		{time.Second, func(n uint64) bool { return n == frames }},
	} {
		m.Sleep(t.Context(), c.wait)
		before := src.Counts().Searched
		if _, err := src.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := src.Counts().Searched - before; !c.want(n) {
			t.Errorf("after %v: %d of %d pages searched", c.wait, n, frames)
		}
	}
}
