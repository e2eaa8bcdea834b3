package perf

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/tests/internal/locality"
)

// A program has its memory in objects, which lie one behind another in its address space: arrays,
// arenas, parts of its text. What it does, it does with some of them, and with all of those. Its
// pages lie in physical memory in runs of one to four, among those of other programs: 2.3 on
// average, as was measured of working sets by Ustiugov et al. (REAP, ASPLOS 2021) and others.
type program struct {
	objects [][]uint64 // gfns in virtual order
}

// machine is programs that were loaded side by side.
type machine struct {
	programs []program
	image    []byte
}

// newMachine makes a machine of four programs, whose objects have mean pages on average, half of
// that to one and a half.
func newMachine(rnd *rand.Rand, pages uint64, mean int) *machine {
	m := &machine{programs: make([]program, 4), image: make([]byte, pages*image.PageSize)}
	for gfn := range pages { // all different, and compressible
		binary.LittleEndian.PutUint64(m.image[gfn*image.PageSize:], gfn+1)
	}
	need := make([][]uint64, len(m.programs)) // frames of each, in the order in which it asked
	for gfn := uint64(0); gfn < pages*3/4; {
		p := rnd.IntN(len(need))
		for range min(1+rnd.Uint64N(4), pages-gfn) {
			need[p] = append(need[p], gfn)
			gfn++
		}
	}
	for p, frames := range need {
		// It did not ask in the order of its addresses: runs are spread over all of them.
		var runs [][]uint64
		for len(frames) > 0 {
			n := 1
			for n < len(frames) && frames[n] == frames[n-1]+1 {
				n++
			}
			runs, frames = append(runs, frames[:n]), frames[n:]
		}
		rnd.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
		var virtual []uint64
		for _, r := range runs {
			virtual = append(virtual, r...)
		}
		for len(virtual) > 0 {
			n := min(mean/2+rnd.IntN(mean+1), len(virtual))
			m.programs[p].objects = append(m.programs[p].objects, virtual[:max(n, 1)])
			virtual = virtual[max(n, 1):]
		}
	}
	return m
}

// task chooses the objects of a program that a piece of work needs: two fifths of them.
func (p *program) task(rnd *rand.Rand) []int {
	return rnd.Perm(len(p.objects))[:len(p.objects)*2/5]
}

// like is the same work with other data: a tenth of the objects are others, and the order is partly
// another one.
func (p *program) like(rnd *rand.Rand, task []int) []int {
	again := append([]int(nil), task...)
	for i := range again {
		if rnd.IntN(10) == 0 {
			again[i] = rnd.IntN(len(p.objects))
		}
		if j := rnd.IntN(20); i > j && rnd.IntN(4) == 0 {
			again[i], again[i-j] = again[i-j], again[i]
		}
	}
	return again
}

// touches of a task, in order.
func (p *program) touches(task []int) (gfns []uint64) {
	for _, o := range task {
		gfns = append(gfns, p.objects[o]...)
	}
	return gfns
}

// interleave is what processors touch that work at the same time, each at a pace that changes.
func interleave(rnd *rand.Rand, of [][]uint64) (gfns []uint64) {
	rest := append([][]uint64(nil), of...)
	for left := true; left; {
		left = false
		for i := range rest {
			n := min(rnd.IntN(12), len(rest[i]))
			gfns = append(gfns, rest[i][:n]...)
			rest[i] = rest[i][n:]
			left = left || len(rest[i]) > 0
		}
	}
	return gfns
}

// TestLocality is the comparison of Halite (section 5.1: 22,975 disk faults with single pages,
// 14,501 with 64 KiB of physical addresses, 6,908 with locality blocks; of what was brought along
// 19, 36 and 83 % was used), over the blocks of the index: four programs work at the same time, on
// four processors, and nothing is there at first.
func TestLocality(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, mean := range []int{16, 36, 64} {
		m := newMachine(rnd, 1<<13, mean)
		var tasks [][]int
		var traced, now [][]uint64
		for i := range m.programs {
			p := &m.programs[i]
			tasks = append(tasks, p.task(rnd))
			traced = append(traced, p.touches(tasks[i]))
			now = append(now, p.touches(p.like(rnd, tasks[i])))
		}
		touches := interleave(rnd, now)
		var virtual, byCPU []index.Group
		for i, p := range m.programs {
			var all []uint64
			for _, o := range p.objects {
				all = append(all, o...)
			}
			virtual = append(virtual, index.Group{Kind: index.GroupVirtual, Runs: runsOf(all)})
			byCPU = append(byCPU, index.Group{Kind: index.GroupUsed, Runs: runsOf(traced[i])})
		}
		merged := []index.Group{{Kind: index.GroupUsed, Runs: runsOf(interleave(rnd, traced))}}
		t.Logf("objects of %d pages on average", mean)
		show := func(name string, with func(uint64) []uint64) locality.Figures {
			f := locality.Replay(touches, with)
			t.Logf("  %-28s %v", name, f)
			return f
		}
		show("single pages", locality.Single)
		physical := show("physical 64 KiB", locality.Physical)
		v := show("virtual order, not traced", m.blocks(t, virtual))
		one := show("trace, one order for all", m.blocks(t, append(merged, virtual...)))
		cpu := show("trace, by processor", m.blocks(t, append(byCPU, virtual...)))
		if v.Requests >= physical.Requests || v.Share() <= physical.Share() {
			t.Error("blocks in virtual order are worth less than physical ones")
		}
		if mean >= 16 && (cpu.PerPage() > 0.2 || cpu.Share() < 0.8 || cpu.Share() < one.Share()) {
			t.Error("blocks by a trace: want 0.2 requests a page, 80 % used, more than in one order")
		}
		if mean >= 64 && (v.PerPage() > 0.2 || v.Share() < 0.8) {
			t.Error("blocks in virtual order: want 0.2 requests a page, and 80 % used")
		}
	}
}

// runsOf returns pages as runs, in their order.
func runsOf(gfns []uint64) (runs []index.Run) {
	for _, gfn := range gfns {
		if n := len(runs); n > 0 && runs[n-1].GFN+runs[n-1].Count == gfn {
			runs[n-1].Count++
		} else {
			runs = append(runs, index.Run{GFN: gfn, Count: 1})
		}
	}
	return runs
}

// blocks imports the machine with a layout, and gives what each page brings with it.
func (m *machine) blocks(t *testing.T, order []index.Group) func(uint64) []uint64 {
	t.Helper()
	s, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "store"),
		index.OpenOptions{Create: true, Blobs: blobtest.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	src := index.Source{Memory: "a machine", Image: flat{bytes.NewReader(m.image)}}
	o := index.ImportOptions{Name: "a", Order: order, Profile: index.ProfileFast}
	if _, _, err := s.Import(t.Context(), src, o); err != nil {
		t.Fatal(err)
	}
	img, err := s.OpenImage(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return locality.Blocks(img)
}

// flat is an image in RAM.
type flat struct{ *bytes.Reader }

func (f flat) Size() int64 { return f.Reader.Size() }

func (f flat) Extents() ([]index.Run, error) {
	return []index.Run{{GFN: 0, Count: uint64(f.Size()) / image.PageSize}}, nil
}
