package index

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// GCOptions is how to collect.
type GCOptions struct {
	DryRun   bool // say only what would be done
	Progress func(Progress)
}

// GCReport is what was given back.
type GCReport struct {
	DryRun         bool   `json:"dry_run"`
	RemovedPacks   int    `json:"removed_packs"`
	RewrittenPacks int    `json:"rewritten_packs"`
	DroppedPages   uint64 `json:"dropped_pages"`
	FreedBytes     int64  `json:"freed_bytes"`
	// DeadBytes is what nothing refers to and stays all the same: not worth a rewrite, or held by open
	// images.
	DeadBytes int64 `json:"dead_bytes"`
}

// GC gives back the space of what was removed: it deletes packs that no checkpoint refers to and
// rewrites those of which a fifth or more is dead, as a new generation with the same slots, so that
// nothing which refers to them changes. Images stay open and are read meanwhile.
//
// It collects nothing while a checkpoint is damaged, because then nobody knows what that one needs:
// repair or remove it first.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	done, err := s.write(ctx)
	if err != nil {
		return GCReport{}, err
	}
	defer done()
	c := &collector{s: s, o: o, report: GCReport{DryRun: o.DryRun}}
	if err := c.run(ctx); err != nil {
		return c.report, fmt.Errorf("gc: %w", err)
	}
	return c.report, nil
}

// collector is one garbage collection.
type collector struct {
	s      *Store
	o      GCOptions
	live   *liveSet
	listed []uint64 // packs that some root lists: these are never removed
	report GCReport
}

func (c *collector) run(ctx context.Context) error {
	if err := c.mark(ctx); err != nil {
		return err
	}
	// What frees space comes before what needs some.
	var rewrite []victim
	numbers, doomed := c.s.packs.numbers()
	c.report.DeadBytes = doomed
	for _, number := range numbers {
		_, listed := slices.BinarySearch(c.listed, number)
		if !listed {
			if err := c.remove(ctx, number); err != nil {
				return err
			}
			continue
		}
		v, err := c.weigh(ctx, number)
		if err != nil {
			return err
		}
		if v.worth() {
			rewrite = append(rewrite, v)
		} else {
			c.report.DeadBytes += v.dead
		}
	}
	slices.SortFunc(rewrite, func(a, b victim) int { return int(b.dead - a.dead) })
	m := newMeter(c.o.Progress, "compact", "packs", int64(len(rewrite)))
	for _, v := range rewrite {
		if err := c.rewrite(ctx, v); err != nil {
			return err
		}
		m.add(1)
	}
	if c.o.DryRun {
		return nil
	}
	return c.s.hints.sweep(ctx)
}

// mark finds out what is live. Checkpoints that are removed meanwhile count as if they were there.
func (c *collector) mark(ctx context.Context) error {
	c.s.cat.mu.Lock()
	var entries []*catalogEntry
	var err error
	for _, name := range c.s.cat.names() {
		e := c.s.cat.m[name]
		entries = append(entries, e)
		if e.err != nil {
			err = errors.Join(err,
				fmt.Errorf("checkpoint %s is damaged, nothing is collected: %w", name, e.err))
		}
	}
	c.listed, _ = c.s.cat.referenced()
	c.s.cat.mu.Unlock()
	if err != nil {
		return err
	}
	c.live = newLiveSet()
	packs := newLazyPacks(ctx, c.s.packs)
	defer packs.release()
	m := newMeter(c.o.Progress, "mark", "checkpoints", int64(len(entries)))
	for _, e := range entries {
		r, err := readRoot(ctx, c.s.blobs, c.s.dec, e.Name, e.Generation)
		if c.s.gone(e) {
			continue
		}
		if err != nil {
			return fmt.Errorf("checkpoint %s: %w", e.Name, err)
		}
		if err := c.live.addRoot(ctx, packs, r); err != nil {
			return err
		}
		m.add(1)
	}
	return nil
}

// gone says whether a checkpoint was removed since e was looked up.
func (s *Store) gone(e *catalogEntry) bool {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	return s.cat.m[e.Name] != e
}

// remove deletes a pack that no root lists.
func (c *collector) remove(ctx context.Context, number uint64) error {
	info, ok := c.s.packs.info(number)
	if !ok {
		return nil
	}
	if c.o.DryRun {
		c.report.RemovedPacks++
		c.report.FreedBytes += info.bytes
		return nil
	}
	gone, err := c.s.packs.doom(ctx, number)
	if err != nil {
		return fmt.Errorf("remove pack %d: %w", number, err)
	}
	if !gone {
		c.report.DeadBytes += info.bytes
		return nil
	}
	c.report.RemovedPacks++
	c.report.FreedBytes += info.bytes
	return nil
}

// victim is a pack and what is dead in it.
type victim struct {
	number uint64
	bytes  int64
	dead   int64 // bytes, about
	pages  int   // dead pages
}

func (v victim) worth() bool { return v.dead > 0 && v.dead*5 >= v.bytes }

// weigh finds out how much of a pack is dead.
func (c *collector) weigh(ctx context.Context, number uint64) (victim, error) {
	e, err := c.s.packs.pin(ctx, number)
	if err != nil {
		return victim{}, err
	}
	defer c.s.packs.unpin(e)
	p := e.acquire()
	defer p.release()
	v := victim{number: number, bytes: p.Size()}
	live := c.live.packs[number]
	for b := range p.Blocks() {
		first, count := p.BlockSlots(b)
		stored, dead := 0, 0
		for slot := first; slot < first+count; slot++ {
			if p.Dead(slot) {
				continue
			}
			stored++
			if !live.hasSlot(slot) {
				dead++
			}
		}
		if dead > 0 {
			v.dead += int64(p.BlockBytes(b)) * int64(dead) / int64(stored)
			v.pages += dead
		}
	}
	for i := range p.Records() {
		if !live.hasRecord(i) {
			v.dead += p.Record(i).Stored
		}
	}
	if live == nil || !live.segment {
		for i := range p.Frames() {
			v.dead += p.Frame(i).Stored
		}
	}
	return v, nil
}

// rewrite puts a generation without the dead in the place of a pack.
func (c *collector) rewrite(ctx context.Context, v victim) error {
	if c.o.DryRun {
		c.report.RewrittenPacks++
		c.report.DroppedPages += uint64(v.pages)
		c.report.FreedBytes += v.dead
		return nil
	}
	info, err := c.copyLive(ctx, v.number)
	if err != nil {
		return fmt.Errorf("compact pack %d: %w", v.number, err)
	}
	if err := c.s.packs.replace(ctx, v.number, info); err != nil {
		return fmt.Errorf("compact pack %d: %w", v.number, err)
	}
	c.report.RewrittenPacks++
	c.report.DroppedPages += uint64(v.pages)
	c.report.FreedBytes += v.bytes - info.bytes
	return nil
}

// copyLive writes the next generation of a pack.
func (c *collector) copyLive(ctx context.Context, number uint64) (packInfo, error) {
	e, err := c.s.packs.pin(ctx, number)
	if err != nil {
		return packInfo{}, err
	}
	defer c.s.packs.unpin(e)
	p := e.acquire()
	defer p.release()
	enc, err := pack.NewEncoder(c.s.file.Profile)
	if err != nil {
		return packInfo{}, err
	}
	info := packInfo{generation: c.s.packs.nextGeneration(number)}
	bw, err := c.s.blobs.Create(ctx, pack.Name(number, info.generation))
	if err != nil {
		return packInfo{}, err
	}
	w, err := pack.NewWriter(bw, number, info.generation)
	if err != nil {
		return packInfo{}, errors.Join(err, bw.Abort())
	}
	defer w.Abort()
	live := c.live.packs[number]
	err = pack.Rewrite(ctx, p.Reader, w, enc, pack.Keep{
		Slot:   live.hasSlot,
		Record: live.hasRecord,
		Frame:  func(int) bool { return live != nil && live.segment },
	})
	if err != nil {
		return packInfo{}, err
	}
	if info.bytes, err = w.Finish(); err != nil {
		return packInfo{}, errors.Join(err, c.s.packs.abandon(ctx, number, info.generation))
	}
	return info, nil
}
