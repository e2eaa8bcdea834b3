package scan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/thawfs/thaw/wss/pagetable"
)

// ErrNoKernel says that no page tables of an operating system were found in a guest's memory.
var ErrNoKernel = errors.New("no page tables of a running 64-bit operating system are in the memory")

// located is what is known of a guest whose registers cannot be read ([TableOptions].Unseen): the part
// that its kernel has in each address space.
type located struct {
	half *kernelHalf
	mode pagetable.Mode
	back time.Time // when bits in roots were last found set again
}

const (
	// maxWatched bounds the entries of roots that are watched.
	maxWatched = 512
	// maxProofs bounds the roots through which a sweep tries to prove the kernel's tables.
	maxProofs = 4
)

// locate searches all of memory for the roots of address spaces while the guest runs. A root that it
// finds is a page that looks like one and has a kernel half that maps the page itself; sweeps verify
// that the CPU uses it before they change anything below.
func (t *Tables) locate(ctx context.Context) error {
	if err := t.refreshPresence(); err != nil {
		return err
	}
	// A place in this image is the guest-physical address.
	var regions []pagetable.Region
	var pages uint64
	for _, r := range t.mem.ram.regions {
		at := r.GFN << frameShift
		regions = append(regions, pagetable.Region{GPA: at, Bytes: r.Count << frameShift, Offset: at})
		pages = max(pages, r.GFN+r.Count)
	}
	image, err := pagetable.NewSpace(t.mem, pages, regions)
	if err != nil {
		return err
	}
	roots, err := image.Find(ctx, t.extents())
	if err != nil {
		return err
	}
	t.counts.Searched += t.mem.ram.frames()
	if len(roots) == 0 {
		return ErrNoKernel
	}
	table := new(pagetable.Table)
	if _, err := t.mem.ReadTable(roots[0].GPA>>frameShift, table); err != nil {
		return err
	}
	t.mode = pagetable.Mode{Levels: roots[0].Levels}
	t.located = &located{half: newKernelHalf(table), mode: t.mode, back: t.o.Clock.Now()}
	t.halves = kernelHalves{t.located.half}
	t.spaces = map[uint64]space{}
	for _, r := range roots[:min(len(roots), maxSpaces)] {
		t.spaces[r.GPA>>frameShift] = space{mode: t.mode, old: true}
	}
	return nil
}

// extents lists the frames that are worth a search.
func (t *Tables) extents() []pagetable.Extent {
	all := []pagetable.Extent{} // nil would mean all of memory
	for _, r := range t.mem.ram.regions {
		if t.present == nil {
			all = append(all, pagetable.Extent{Page: r.GFN, Count: r.Count})
			continue
		}
		for first, count := range t.present.Runs() {
			from, to := max(first, r.Page), min(first+count, r.Page+r.Count)
			if from < to {
				all = append(all, pagetable.Extent{Page: r.GFN + from - r.Page, Count: to - from})
			}
		}
	}
	return all
}

// kernelInUse says whether the CPU has used the kernel half since the sweep before, and whether all
// below it are page tables. Only then are they walked. The guest is paused.
func (c *census) kernelInUse(w *walk) (bool, error) {
	tries := 0
	for _, j := range c.jobs {
		if !j.space.armed || !j.upper {
			continue
		}
		if ok, err := w.provesKernel(j.space.mode, j.gfn, c.halves); ok || err != nil {
			return ok, err
		}
		if tries++; tries == maxProofs {
			break
		}
	}
	c.counts.Refused += uint64(tries)
	return false, nil
}

// watchRoots lists entries of roots for the kernel, whose bits are clear. Whatever a vCPU does next, it
// needs one of them.
func (t *Tables) watchRoots() ([]watched, error) {
	var all []watched
	table := new(pagetable.Table)
	for _, gfn := range slices.Sorted(maps.Keys(t.spaces)) {
		if _, err := t.mem.ReadTable(gfn, table); err != nil {
			return nil, fmt.Errorf("read page table at gfn %d: %w", gfn, err)
		}
		for i := upperHalf; i < entries && len(all) < maxWatched; i++ {
			raw := table.Entry(i)
			if raw != 0 && raw&pagetable.Accessed == 0 && t.halves.have(i, raw) {
				// Whether a vCPU runs is not known, so a bit that stays clear proves nothing.
				all = append(all, watched{int64(gfn<<frameShift) + int64(i)*8, raw, true})
			}
		}
	}
	return all, nil
}

// silent says that no bit has come back for so long that the way to flush has to be tested again.
func (l *located) silent(now time.Time, back verdict, limit time.Duration) bool {
	if back == cameBack {
		l.back = now
	}
	return now.Sub(l.back) > limit
}
