package pagetable

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// ram is guest-physical memory under construction.
type ram struct {
	t    testing.TB
	b    []byte
	next uint64 // frame for the next table
}

func newRAM(t testing.TB, pages int) *ram {
	return &ram{t: t, b: make([]byte, pages*PageSize), next: 1}
}

func (m *ram) pages() uint64 { return uint64(len(m.b)) / PageSize }

// alloc takes a frame for a table, not next to the one before.
func (m *ram) alloc() uint64 {
	f := m.next
	m.next += 3
	if f >= m.pages() {
		m.t.Fatal("no frames left for tables")
	}
	return f
}

func (m *ram) entry(frame uint64, i int) []byte { return m.b[frame*PageSize+uint64(i)*8:][:8] }

func (m *ram) set(frame uint64, i int, e uint64) {
	binary.LittleEndian.PutUint64(m.entry(frame, i), e)
}

func (m *ram) get(frame uint64, i int) uint64 {
	return binary.LittleEndian.Uint64(m.entry(frame, i))
}

// mapPage maps the page at virtual to frame, by an entry of a level: 1 for 4 KiB, 2 for 2 MiB, 3
// for 1 GiB. flags are further bits of the entry.
func (m *ram) mapPage(root Root, virtual, frame uint64, level int, flags uint64) {
	at := root.GPA / PageSize
	for l := root.Levels; l > level; l-- {
		i := int(virtual >> (PageShift + 9*(l-1)) % Entries)
		e := m.get(at, i)
		if e == 0 {
			e = m.alloc()<<PageShift | 0x67
			m.set(at, i, e)
		}
		at = e & AddressMask >> PageShift
	}
	if level > 1 {
		flags |= Large
	}
	m.set(at, int(virtual>>(PageShift+9*(level-1))%Entries), frame<<PageShift|flags|Present)
}

func (m *ram) space(regions ...Region) *Space {
	m.t.Helper()
	s, err := NewSpace(bytes.NewReader(m.b), m.pages(), regions)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// root makes an empty root.
func (m *ram) root(levels int) Root { return Root{m.alloc() * PageSize, levels} }

// A guest is memory with a kernel and processes as Linux has them: all of memory mapped from
// direct on, by 2 MiB pages but for the first; the kernel's text at the very top; vmalloc areas
// in between, scattered; and each process some stretches of addresses with scattered pages.
type guest struct {
	*ram
	roots   []Root
	process [][]uint64 // the data pages of each, in virtual order
	vmalloc []uint64
}

const (
	directMap = 0xffff_8880_0000_0000
	vmallocAt = 0xffff_c900_0000_0000
	textAt    = 0xffff_ffff_8100_0000
	direct5   = 0xff11_0000_0000_0000
	vmalloc5  = 0xffa0_0000_0000_0000
)

func newGuest(t testing.TB, seed uint64, pages, processes, levels int) *guest {
	g := &guest{ram: newRAM(t, pages)}
	rnd := rand.New(rand.NewPCG(seed, 1))
	direct, vmalloc := uint64(directMap), uint64(vmallocAt)
	if levels == 5 {
		direct, vmalloc = direct5, vmalloc5
	}
	kernel := g.root(levels)
	for f := uint64(0); f < Pages2M; f++ {
		g.mapPage(kernel, direct+f*PageSize, f, 1, 0x162)
	}
	for f := uint64(Pages2M); f < g.pages(); f += Pages2M {
		g.mapPage(kernel, direct+f*PageSize, f, 2, 0x1e2|1<<63)
	}
	// Data lies in the upper half of memory, tables grow from the bottom.
	free := rnd.Perm(pages / 2)
	take := func() uint64 {
		f := uint64(pages/2 + free[0])
		free = free[1:]
		for i := uint64(0); i < PageSize; i += 8 { // content that is no table
			binary.LittleEndian.PutUint64(g.b[f*PageSize+i:], rnd.Uint64()|Large|Present)
		}
		return f
	}
	for i := range uint64(20) {
		f := take()
		g.mapPage(kernel, vmalloc+i*PageSize, f, 1, 0x163|1<<63)
		g.vmalloc = append(g.vmalloc, f)
	}
	g.mapPage(kernel, textAt, uint64(pages/2)&^(Pages2M-1), 2, 0x1e1)
	for p := range processes {
		root := g.root(levels)
		for i := UpperHalf; i < Entries; i++ {
			if e := g.get(kernel.GPA/PageSize, i); e != 0 {
				g.set(root.GPA/PageSize, i, e|uint64(p%2)<<5) // not used by every process yet
			}
		}
		var data []uint64
		at := uint64(0x40_0000)
		for range 4 {
			for range 5 + rnd.IntN(30) {
				f := take()
				g.mapPage(root, at, f, 1, 0x867)
				data = append(data, f)
				at += PageSize
			}
			at += rnd.Uint64N(1<<38) &^ (PageSize - 1)
		}
		g.roots, g.process = append(g.roots, root), append(g.process, data)
	}
	return g
}

// listed returns the pages of runs.
func listed(runs []Extent) (pages []uint64) {
	for _, r := range runs {
		for p := r.Page; p < r.Page+r.Count; p++ {
			pages = append(pages, p)
		}
	}
	return pages
}
