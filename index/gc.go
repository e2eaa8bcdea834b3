package index

import (
	"cmp"
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

// GCReport says what a collection did.
type GCReport struct {
	DryRun         bool   `json:"dry_run"`
	RemovedPacks   int    `json:"removed_packs"`
	RewrittenPacks int    `json:"rewritten_packs"`
	DroppedPages   uint64 `json:"dropped_pages"`
	FreedBytes     int64  `json:"freed_bytes"`
	// DeadBytes are not referred to by anything, but stay: a rewrite is not worth it, or an open image
	// holds them.
	DeadBytes int64 `json:"dead_bytes"`
}

// GC frees the space of what was removed: it deletes packs that no checkpoint refers to and
// rewrites those of which a fifth or more is dead, as a new generation with the same slots, so that
// nothing which refers to them changes. Images can be open and read meanwhile.
//
// Before anything is deleted, a second check makes sure in another way that nothing needs it (see
// audit). If the two do not agree, the error is a *LivenessError, and nothing was deleted.
//
// It collects nothing while a checkpoint is damaged, because then it is not known what that one needs:
// repair or remove it first. A pack in which something is damaged that is still needed stays as it
// is; GC goes on, and ends with that error.
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
	s       *Store
	o       GCOptions
	entries []*catalogEntry // that are looked at
	live    *liveSet
	listed  []uint64 // packs that some root lists: these are never removed
	report  GCReport

	// Of a Repack. known says of which checkpoints live has what they refer to already; also is told of
	// the others.
	known func(e *catalogEntry) bool
	also  func(n nodes, e *catalogEntry, r *root) error
}

func (c *collector) run(ctx context.Context) error {
	if err := c.mark(ctx); err != nil {
		return err
	}
	remove, rewrite, err := c.plan(ctx)
	if err != nil {
		return err
	}
	if len(remove)+len(rewrite) > 0 {
		if err := c.audit(ctx, remove, rewrite); err != nil {
			return err
		}
	}
	// First what frees space, then what needs some.
	for _, number := range remove {
		if err := c.remove(ctx, number); err != nil {
			return err
		}
	}
	var damaged []error
	m := newMeter(c.o.Progress, "compact", "packs", int64(len(rewrite)))
	for _, v := range rewrite {
		if err := c.rewrite(ctx, v); isDamage(err) {
			damaged = append(damaged, err)
			c.report.DeadBytes += v.dead
		} else if err != nil {
			return err
		}
		m.add(1)
	}
	if !c.o.DryRun {
		damaged = append(damaged, c.s.hints.sweep(ctx))
	}
	return errors.Join(damaged...)
}

// plan says which packs will be deleted, and which rewritten, those with the most dead bytes first.
func (c *collector) plan(ctx context.Context) (remove []uint64, rewrite []victim, err error) {
	numbers, doomed := c.s.packs.numbers()
	c.report.DeadBytes = doomed
	for _, number := range numbers {
		if _, listed := slices.BinarySearch(c.listed, number); !listed {
			remove = append(remove, number)
			continue
		}
		v, err := c.weigh(ctx, number)
		if err != nil {
			return nil, nil, err
		}
		if v.worth() {
			rewrite = append(rewrite, v)
		} else {
			c.report.DeadBytes += v.dead
		}
	}
	slices.SortFunc(rewrite, func(a, b victim) int { return cmp.Compare(b.dead, a.dead) })
	return remove, rewrite, nil
}

// mark finds out what is live. Checkpoints that are removed meanwhile count as if they were there.
func (c *collector) mark(ctx context.Context) error {
	if err := c.list(); err != nil {
		return err
	}
	c.live = newLiveSet()
	return c.walk(ctx)
}

// list notes which checkpoints there are. All of them must be sound.
func (c *collector) list() error {
	c.s.cat.mu.Lock()
	defer c.s.cat.mu.Unlock()
	var err error
	for _, name := range c.s.cat.names() {
		e := c.s.cat.m[name]
		c.entries = append(c.entries, e)
		if e.err != nil {
			err = errors.Join(err,
				fmt.Errorf("checkpoint %s is damaged, nothing is collected: %w", name, e.err))
		}
	}
	c.listed = c.s.cat.referenced()
	return err
}

// walk adds to live what the checkpoints refer to.
func (c *collector) walk(ctx context.Context) error {
	packs := newLazyPacks(ctx, c.s.packs)
	defer packs.release()
	m := newMeter(c.o.Progress, "mark", "checkpoints", int64(len(c.entries)))
	for _, e := range c.entries {
		if err := c.markEntry(ctx, packs, e); err != nil {
			return err
		}
		m.add(1)
	}
	return nil
}

// markEntry notes what one checkpoint refers to.
func (c *collector) markEntry(ctx context.Context, packs *lazyPacks, e *catalogEntry) error {
	if c.known != nil && c.known(e) {
		return nil
	}
	r, err := c.s.readRoot(ctx, e.Name, e.Generation)
	if c.s.gone(e) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", e.Name, err)
	}
	if err := c.s.packs.noneForeign(ctx, r.top); err != nil {
		return fmt.Errorf("checkpoint %s is damaged, nothing is collected: %w", e.Name, err)
	}
	packs.of(r)
	if err := c.live.addRoot(ctx, packs, r); err != nil || c.also == nil {
		return err
	}
	return c.also(packs, e, r)
}

// gone says whether a checkpoint was removed or replaced since e was looked up.
func (s *Store) gone(e *catalogEntry) bool { return s.entry(e.Name) != e }

// entry returns the present entry of a name; nil if there is none.
func (s *Store) entry(name string) *catalogEntry {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	return s.cat.m[name]
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

// weigh computes how much of a pack is dead.
func (c *collector) weigh(ctx context.Context, number uint64) (victim, error) {
	p, done, err := c.s.packs.use(ctx, number, 0)
	if err != nil {
		return victim{}, err
	}
	defer done()
	v := victim{number: number, bytes: p.Size()}
	live := c.live.packs[number]
	spots := p.Spots()
	for g := range spots.Groups() {
		first, count := spots.Group(g)
		stored, dead := 0, 0
		for spot := first; spot < first+count; spot++ {
			slot := spots.Slot(spot)
			if p.Dead(slot) || spots.Of(slot) != spot {
				continue
			}
			stored++
			if !live.hasSlot(slot) {
				dead++
			}
		}
		if dead > 0 {
			v.dead += int64(spots.Bytes(g)) * int64(dead) / int64(stored)
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

// rewrite replaces a pack by a new generation without the dead pages.
func (c *collector) rewrite(ctx context.Context, v victim) error {
	if c.o.DryRun {
		c.report.RewrittenPacks++
		c.report.DroppedPages += uint64(v.pages)
		c.report.FreedBytes += v.dead
		return nil
	}
	live := c.live.packs[v.number]
	enc, err := pack.NewEncoder(c.s.file.Profile)
	if err != nil {
		return err
	}
	before, after, err := c.s.renew(ctx, v.number, func(old *pack.Reader, w *pack.Writer) error {
		return pack.Rewrite(ctx, old, w, enc, c.s.key, pack.Keep{
			Slot:   live.hasSlot,
			Record: live.hasRecord,
			Frame:  func(int) bool { return live != nil && live.segment },
		})
	}, live.allIn)
	if err != nil {
		return fmt.Errorf("compact pack %d: %w", v.number, err)
	}
	c.report.RewrittenPacks++
	c.report.DroppedPages += uint64(v.pages)
	c.report.FreedBytes += before.bytes - after.bytes
	return nil
}

// allIn says whether a new generation has everything live that the old one has.
func (p *livePack) allIn(old, renewed *pack.Reader) error {
	missing := func(what string, i int) error {
		return &CorruptError{Pack: renewed.Name(), What: fmt.Sprintf("%s %d", what, i),
			Err: errors.New("the rewritten pack does not have it")}
	}
	for slot := range uint32(old.Slots()) {
		if p.hasSlot(slot) && !old.Dead(slot) && renewed.Dead(slot) {
			return missing("slot", int(slot))
		}
	}
	for i := range old.Records() {
		if p.hasRecord(i) && old.Record(i).Stored > 0 &&
			(i >= renewed.Records() || renewed.Record(i).Stored == 0) {
			return missing("record", i)
		}
	}
	for i := range old.Frames() {
		if p != nil && p.segment && old.Frame(i).Stored > 0 &&
			(i >= renewed.Frames() || renewed.Frame(i).Stored == 0) {
			return missing("frame", i)
		}
	}
	return nil
}
