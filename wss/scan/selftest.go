package scan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/thawfs/thaw/wss/pagetable"
)

// watched is an entry that maps the page which a vCPU executes. When the vCPU continues, it touches
// that page, so its cleared bit must be set again. This tests a way to flush, and every sweep.
type watched struct {
	entry  int64 // address of the entry
	value  uint64
	halted bool
}

// verdict says what happened to the watched entries.
type verdict int

const (
	unknown    verdict = iota // perhaps no vCPU ran, or the guest changed its tables
	cameBack                  // the bit of at least one was set again
	stayedAway                // no bit was set again, although a vCPU ran
)

// watch finds the entries for the vCPUs' instruction pointers. The guest is paused and its bits are cleared.
func (t *Tables) watch(cpus []CPU) ([]watched, error) {
	var all []watched
	for _, c := range cpus {
		leaf, ok, err := t.translate(c)
		if err != nil {
			return nil, err
		}
		if ok && leaf.Raw&pagetable.Accessed == 0 {
			all = append(all, watched{int64(leaf.Addr()), leaf.Raw, c.Halted})
		}
	}
	return all, nil
}

// translate finds the leaf entry for a vCPU's instruction pointer.
func (t *Tables) translate(c CPU) (leaf pagetable.Entry, ok bool, err error) {
	m, root, ok := c.mode()
	if !ok {
		return pagetable.Entry{}, false, nil
	}
	return pagetable.Translate(t.mem, m, root, c.RIP)
}

func (t *Tables) entry(addr int64) (uint64, error) {
	var word [8]byte
	if _, err := t.mem.ReadAt(word[:], addr); err != nil {
		return 0, fmt.Errorf("read page table at %#x: %w", addr, err)
	}
	return binary.LittleEndian.Uint64(word[:]), nil
}

// look reads watched entries again.
func (t *Tables) look(all []watched) (verdict, error) {
	v := unknown
	for _, w := range all {
		now, err := t.entry(w.entry)
		switch {
		case err != nil:
			return unknown, err
		case now&halfMask != w.value&halfMask: // the guest has changed it
		case now&pagetable.Accessed != 0:
			return cameBack, nil
		case !w.halted:
			v = stayedAway
		}
	}
	return v, nil
}

// choose finds the first way to flush that works.
func (t *Tables) choose(ctx context.Context) error {
	t.flush = nil
	failed := &NoBitsError{Halted: true, Unseen: t.o.Unseen}
	ways := t.mem.Flushes()
	for i, f := range ways {
		v, err := t.test(ctx, &f)
		if v == cameBack && i < len(ways)-1 {
			v, err = t.compare(ctx, &f, &ways[len(ways)-1])
		}
		var outright *flushError
		switch {
		case errors.As(err, &outright):
			failed.Tried = append(failed.Tried, f.Name+": "+outright.err.Error())
			continue
		case err != nil:
			return err
		case v == cameBack:
			t.flush = &f
			return nil
		}
		failed.Tried = append(failed.Tried, f.Name)
		failed.Halted = failed.Halted && v == unknown
	}
	failed.Halted = failed.Halted && !t.o.Unseen
	return failed
}

// test clears all bits, flushes, lets the guest run, and checks whether bits are set again. It does
// that twice, because a translation may be evicted by chance at just that time. The second pass also
// arms the address spaces that are known by then, which saves the guest a pause.
func (t *Tables) test(ctx context.Context, f *Flush) (v verdict, err error) {
	for round := range 2 {
		if round > 0 {
			if err := t.search(ctx); err != nil {
				return unknown, err
			}
		}
		paused, err := t.paused(ctx, func() error { return t.clear(t.newWalk(true), f) })
		t.tested += paused
		if err != nil {
			return unknown, err
		}
		if v, err = t.await(ctx); v != cameBack || err != nil {
			return v, err
		}
	}
	if len(t.spaces) <= t.counts.InUse {
		return v, nil
	}
	// Address spaces that run in turn get bits set now, before the first interval begins.
	return v, t.o.Clock.Sleep(ctx, t.o.TestTime/5)
}

// compare is a second test for a way that has passed the first. The bit of the page that a vCPU
// executes may be set without any flush, by a hypervisor that sometimes interprets an instruction and
// walks the tables itself. The test fails if the most thorough way brings back far more bits in the
// same time.
func (t *Tables) compare(ctx context.Context, f, thorough *Flush) (verdict, error) {
	var bits [2]uint64
	for i, next := range []*Flush{f, thorough, f} {
		w := t.newWalk(true)
		paused, err := t.paused(ctx, func() error { return t.clear(w, next) })
		t.tested += paused
		if err != nil {
			return unknown, err
		}
		if i > 0 {
			bits[i-1] = w.counts.Cleared
		}
		if i < len(bits) {
			if err := t.o.Clock.Sleep(ctx, t.o.TestTime/5); err != nil {
				return unknown, err
			}
		}
	}
	const few = 16 // a difference that may be chance
	if bits[1] > 2*bits[0]+few {
		return stayedAway, nil
	}
	return cameBack, nil
}

// patience, times TestTime, is the limit if all vCPUs wait for interrupts.
const patience = 4

// await waits for a watched bit while the guest runs: for TestTime, or longer if no vCPU runs.
func (t *Tables) await(ctx context.Context) (verdict, error) {
	begin := t.o.Clock.Now()
	for wait := time.Millisecond; ; wait *= 2 {
		if err := t.o.Clock.Sleep(ctx, wait); err != nil {
			return unknown, err
		}
		v, err := t.look(t.watched)
		waited := t.o.Clock.Now().Sub(begin)
		switch {
		case err != nil || v == cameBack:
			return v, err
		case v == stayedAway && waited >= t.o.TestTime, waited >= patience*t.o.TestTime:
			return v, nil
		}
	}
}
