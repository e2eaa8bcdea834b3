package uffd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/index"
)

// bringers is how many pieces are read and decoded at once.
const bringers = 2

// Policy is what a VM gets without asking.
type Policy string

const (
	// WorkingSet brings the working set, in the order in which it was touched.
	WorkingSet Policy = "working-set"
	// Eager brings all of memory, the working set first, and then lets the VM go.
	Eager Policy = "eager"
	// Lazy brings nothing but what is wanted, and what lies beside it.
	Lazy Policy = "lazy"
)

// bring brings what the policy says, and then calls complete if it was all of memory.
func (p *pager) bring(policy Policy, complete func()) {
	if policy == Lazy {
		return
	}
	n, whole := p.bringAll(p.src.Set(), p.src.SetRuns())
	if p.ctx.Err() != nil {
		return
	}
	p.count.setPages.Store(n)
	p.count.setNanos.Store(int64(time.Since(p.begun)))
	if policy != Eager {
		return
	}
	all := []index.Run{{GFN: 0, Count: p.src.Pages()}}
	if _, ok := p.bringAll(p.src.All(), all); ok && whole && p.ctx.Err() == nil && p.complete() {
		complete()
	}
}

// complete says whether nothing is missing but zeros.
func (p *pager) complete() bool {
	for unit := range p.mem.units() {
		if !p.mem.has(unit) && !p.zero(unit) {
			return false
		}
	}
	return true
}

// bringAll installs pieces, or the units that runs have pages of. It gives how many pages came; whole
// says that all of them are there.
func (p *pager) bringAll(pieces Pieces, runs []index.Run) (pages uint64, whole bool) {
	n, job := pieces.Len(), p.piece(pieces)
	if p.perUnit() > 1 {
		units := p.unitsOf(runs)
		n, job = len(units), p.hugeUnit(units)
	}
	var next, came atomic.Int64
	var bad atomic.Bool
	var work sync.WaitGroup
	for range bringers {
		work.Go(func() {
			b := &bringer{}
			for p.ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				p.queue.yield(p.ctx)
				got, err := job(i, b)
				came.Add(int64(got))
				if err != nil && p.complain(err, &bad) {
					return
				}
			}
		})
	}
	work.Wait()
	return uint64(came.Load()), !bad.Load()
}

// A bringer is a goroutine's buffers.
type bringer struct {
	piece index.Piece
	unit  []byte
}

// complain notes that something could not be brought, which is said once, and says whether it is of no use to
// go on. Pages that could not be read are tried again when they are wanted.
func (p *pager) complain(err error, bad *atomic.Bool) (end bool) {
	if errors.Is(err, errGone) || p.ctx.Err() != nil {
		return true
	}
	if !bad.Swap(true) {
		p.log.Warn("pages could not be brought before they are wanted", "err", err)
	}
	_, pages := errors.AsType[*index.PagesError](err)
	_, unit := errors.AsType[*LostError](err)
	return !pages && !unit
}

// piece brings the i-th piece.
func (p *pager) piece(pieces Pieces) func(i int, b *bringer) (uint64, error) {
	return func(i int, b *bringer) (uint64, error) {
		err := pieces.Read(p.ctx, i, &b.piece)
		if _, some := errors.AsType[*index.PagesError](err); err != nil && !some {
			return 0, err
		}
		came, berr := p.bringPages(b.piece.GFNs, b.piece.Pages, func() bool {
			p.queue.yield(p.ctx)
			return p.ctx.Err() == nil
		})
		if berr != nil {
			return came, fmt.Errorf("install pages: %w", berr)
		}
		return came, err
	}
}

// unitsOf are the units that runs have pages of, in their order, those of zeros left out.
func (p *pager) unitsOf(runs []index.Run) (units []uint64) {
	seen := make([]bool, p.mem.units())
	for _, r := range runs {
		for unit := r.GFN / p.perUnit(); unit <= (r.GFN+r.Count-1)/p.perUnit(); unit++ {
			if !seen[unit] && !p.zero(unit) {
				units = append(units, unit)
			}
			seen[unit] = true
		}
	}
	return units
}

// hugeUnit brings the i-th unit.
func (p *pager) hugeUnit(units []uint64) func(i int, b *bringer) (uint64, error) {
	return func(i int, b *bringer) (uint64, error) {
		unit := units[i]
		if p.mem.has(unit) {
			return 0, nil
		}
		if b.unit == nil {
			b.unit = make([]byte, p.mem.pageSize)
		}
		if err := p.src.Read(unit*p.perUnit(), b.unit); err != nil {
			return 0, p.lost(unit*p.perUnit(), err)
		}
		p.queue.yield(p.ctx)
		came, err := p.mem.bring(p.ctx, unit, 1, b.unit)
		return came * p.perUnit(), err
	}
}

// letGo ends the VM's dependence on this process, once all pages are there: what is missing then are zeros,
// which the kernel has itself. A thread that has told of memory it gives back waits until that is read; when
// no call fails for such a reason any more, there is none.
func (p *pager) letGo(d descriptor) error {
	for _, r := range p.mem.regions {
		if err := ioctlUnregister(int(d), r.base, r.size); err != nil {
			return fmt.Errorf("unregister the VM's memory: %w", err)
		}
	}
	at := p.mem.regions[0].base
	for tries := 0; ; tries++ {
		if _, err := d.zero(at, p.mem.pageSize); !isChanging(err) {
			return nil
		}
		if err := backOff(context.WithoutCancel(p.ctx), tries); err != nil {
			return err
		}
	}
}
