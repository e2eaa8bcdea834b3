package guest

import (
	"encoding/binary"
	"fmt"
)

// Guest physical addresses that the programs are linked for (src/guest.ld, src/guest.h).
const (
	BootAddr = 0x7000  // the boot page
	LoadAddr = 0x10000 // the program, then its data
	StackTop = 0x30000 // of the first vCPU; each further one has its stack StackSize lower
	// StackSize is the stack size of each vCPU in bytes. The lowest of MaxCPUs stacks ends at 0x20000.
	StackSize = 0x2000
	// MaxCPUs is the most vCPUs that a program can use.
	MaxCPUs = 8
	// Reserved is the end of the fixed addresses that programs use. After it come the page tables, made
	// by the VMM, and then the program's pages.
	Reserved = 0x100000
)

const (
	pageSize  = 4096
	bootMagic = 0x746f6f6277616874 // "thawboot"
	// entries is the number of versions in a table or root page (ENTRIES in src/pages.c).
	entries = 1020
)

// Boot is struct boot of src/guest.h: the parameters that the VMM passes to a program. All sizes
// are in pages.
type Boot struct {
	Magic     uint64
	Seed      uint64
	First     uint64 // frame number of the first page that the program may fill
	HoleFirst uint64 // frames HoleFirst .. HoleFirst+HoleCount-1 are not memory
	HoleCount uint64

	Roots, Tables, Pages uint64 // root pages, then table pages, then checked pages

	Set          uint64 // pages of the working set
	Limit        uint64 // units to do; 0: no limit
	PeriodUS     uint64 // microseconds between two frames or ticks
	WritePercent uint64
	Cold         uint64 // one in this many transactions leaves the set; 0: none does
	Cluster      uint64 // pages that stay adjacent when the set is spread over memory
}

// Encode returns the bytes for [BootAddr].
func (b Boot) Encode() []byte {
	out, err := binary.Append(nil, binary.LittleEndian, b)
	if err != nil {
		panic(err) // a struct of integers
	}
	return out
}

// RAM says which frames a program may fill: First .. End-1, without the hole.
type RAM struct {
	First, End           uint64 // frame numbers
	HoleFirst, HoleCount uint64 // HoleCount 0: no hole
}

// frames returns the number of frames of r that are memory.
func (r RAM) frames() uint64 {
	if r.End <= r.First {
		return 0
	}
	n := r.End - r.First
	if r.HoleCount > 0 && r.HoleFirst < r.End {
		n -= min(r.HoleCount, r.End-r.HoleFirst)
	}
	return n
}

// layOut divides n frames into root pages, table pages and checked pages. pages is 0 if n is too small.
func layOut(n uint64) (roots, tables, pages uint64) {
	above := func(pages uint64) (roots, tables uint64) {
		tables = (pages + entries - 1) / entries
		return (tables + entries - 1) / entries, tables
	}
	// The tables that n pages would need are a little more than enough for the pages that are left.
	roots, tables = above(n)
	if roots+tables >= n {
		return 0, 0, 0
	}
	pages = n - roots - tables
	for {
		roots, tables = above(pages + 1)
		if roots+tables+pages+1 > n {
			break
		}
		pages++
	}
	roots, tables = above(pages)
	return roots, tables, pages
}

// maxRoots is MAX_ROOTS of src/pages.c: 1024 root pages are enough for about 4 TiB of memory.
const maxRoots = 1024

func (b *Boot) place(r RAM, fillPercent uint64) error {
	n := r.frames() * fillPercent / 100
	b.First, b.HoleFirst, b.HoleCount = r.First, r.HoleFirst, r.HoleCount
	if r.HoleCount == 0 {
		b.HoleFirst = ^uint64(0)
	}
	b.Roots, b.Tables, b.Pages = layOut(n)
	if b.Pages < minPages {
		return fmt.Errorf("%d pages of memory are left for the program, and it needs %d", b.Pages, minPages)
	}
	if b.Roots > maxRoots {
		return fmt.Errorf("the programs fill at most %d pages", uint64(maxRoots)*entries*entries)
	}
	return nil
}

// minPages is the least memory that the programs need, in pages: enough for a stream's frame buffers.
const minPages = 512
