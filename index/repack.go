package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/thawfs/thaw/index/pack"
)

// RepackOptions is how to repack.
type RepackOptions struct {
	// Names are the checkpoints whose packs are repacked; none: those of all.
	Names []string
	// Own leaves out the packs that other checkpoints than Names list, too.
	Own    bool
	DryRun bool // say only what would be done
	// Most is how many packs are repacked at most; 0: all that are worth it. Report.Left says how many
	// are left then.
	Most int
	// Seen returns pages of a checkpoint that machines asked for when they were restored from it, beside
	// its working set. They may be in any order. Nil: none are known.
	Seen func(Checkpoint) []Run
	// Memory, if not nil, spares a call what earlier ones on the same store have found out, although it
	// may have been closed and changed meanwhile. It is used by one call at a time.
	Memory *RepackMemory
	// Wait is called again and again, in the middle of packs, and before each checkpoint and pack that is
	// looked at, and returns when the work may go on. Its error ends the call. Nil: it always may.
	Wait     func(context.Context) error
	Progress func(Progress)
}

// RepackReport says what a repacking did.
type RepackReport struct {
	DryRun bool `json:"dry_run"`
	// Packs were looked at; Repacked of them were written again, or would be; Left would be worth it,
	// and were left by Most.
	Packs    int `json:"packs"`
	Repacked int `json:"repacked_packs"`
	Left     int `json:"left_packs"`
	// Damaged packs stay as they are.
	Damaged int `json:"damaged_packs"`
	// Pages of the repacked packs, by the way in which they are stored now.
	HotPages     uint64 `json:"hot_pages"`
	WarmPages    uint64 `json:"warm_pages"`
	ColdPages    uint64 `json:"cold_pages"`
	DroppedPages uint64 `json:"dropped_pages"`
	// GatheredPages were copied into new packs, which count as repacked ones, so that the versions that
	// checkpoints of a machine have of a page lie together. Where they were copied from they are dead pages.
	GatheredPages uint64 `json:"gathered_pages"`
	// BytesBefore and BytesAfter are the sizes of the repacked packs. Of a dry run the latter is an
	// estimate.
	BytesBefore int64 `json:"bytes_before"`
	BytesAfter  int64 `json:"bytes_after"`
}

// Add adds what another call did, after this one.
func (r *RepackReport) Add(o RepackReport) {
	r.DryRun = o.DryRun
	r.Packs = max(r.Packs, o.Packs)
	r.Repacked += o.Repacked
	r.Left = o.Left
	r.Damaged += o.Damaged
	r.HotPages += o.HotPages
	r.WarmPages += o.WarmPages
	r.ColdPages += o.ColdPages
	r.DroppedPages += o.DroppedPages
	r.GatheredPages += o.GatheredPages
	r.BytesBefore += o.BytesBefore
	r.BytesAfter += o.BytesAfter
}

// FreedBytes is by how much the repacked packs became smaller; negative if they became larger.
func (r *RepackReport) FreedBytes() int64 { return r.BytesBefore - r.BytesAfter }

// ErrGaveWay: another process waits to write to the store, which was opened to make room for it
// (OpenOptions.Yield). What was being done is undone, or done whole.
var ErrGaveWay = errors.New("it gives way to another process that waits to write to the store")

// Repack stores pages by how they are used, over all checkpoints: those of working sets in units that
// decode in the least time, those near them or seen in restores as an import stores them, and all others,
// which hardly anybody waits for, in clusters of what is alike, where they take the least space. Dead
// pages are dropped, as by GC.
//
// It writes packs again as their next generations, with the same slots, one after another, those first
// from which most is won; nothing that refers to them changes, and images that are open go on reading what
// they opened. All pages of a checkpoint that was imported with ProfileFast count as used. A new generation
// is read back, and every page compared with its hash, before it takes the place of the old one. A pack is
// left as it is when too little would be won (see packUse.worth), so that a second Repack does nothing.
// When a working set is added or replaced, the next Repack moves pages.
//
// Before that, unless it is for Names, it brings the versions of pages together that checkpoints of one
// machine have (see gatherer): in a new pack, for which checkpoints get new generations, as by SetWorkingSet.
//
// Like GC it does nothing while a checkpoint is damaged. A pack in which something is damaged stays as it
// is; Repack goes on, and ends with that error (RepackReport.Damaged).
func (s *Store) Repack(ctx context.Context, o RepackOptions) (RepackReport, error) {
	done, err := s.write(ctx)
	if err != nil {
		return RepackReport{}, err
	}
	defer done()
	if o.Memory == nil {
		o.Memory = NewRepackMemory()
	}
	if s.yield != YieldNone {
		watched, end := s.watchWanted(ctx)
		defer end()
		ctx = watched
	}
	r := &repacker{s: s, o: o, report: RepackReport{DryRun: o.DryRun}}
	if err := r.run(ctx); err != nil {
		if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && errors.Is(cause, ErrGaveWay) {
			err = cause
		}
		return r.report, fmt.Errorf("repack: %w", err)
	}
	return r.report, nil
}

// wantedPoll is how often one who gives way looks whether it must.
const wantedPoll = 50 * time.Millisecond

// watchWanted returns a context that ends with ErrGaveWay when another process wants to write.
func (s *Store) watchWanted(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		again := time.NewTicker(wantedPoll)
		defer again.Stop()
		for !WriterWaits(s.dir, s.yield) {
			select {
			case <-again.C:
			case <-ctx.Done():
				return
			}
		}
		cancel(ErrGaveWay)
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// repacker is one Repack.
type repacker struct {
	s       *Store
	o       RepackOptions
	c       *collector         // what is live
	gauged  *pack.ClusterGauge // made when it is needed
	report  RepackReport
	damaged []error
	left    []weight // packs in which something is damaged
	stopped bool     // it was told to end, where it waits
}

func (r *repacker) run(ctx context.Context) error {
	if _, err := r.packs(); err != nil { // a name is wrong
		return err
	}
	for {
		if err := r.mark(ctx); err != nil {
			return err
		}
		did, err := r.gather(ctx)
		if err != nil {
			return err
		}
		if !did || r.o.DryRun {
			break
		}
		if r.o.Most > 0 {
			r.report.Left = 1 // or none: the next call finds out
			return nil
		}
	}
	numbers, err := r.packs()
	if err != nil {
		return err
	}
	plan, err := r.plan(ctx, numbers)
	if err != nil {
		return err
	}
	var total int64
	for _, w := range plan {
		total += w.bytes
	}
	if n := r.o.Most; n > 0 && len(plan) > n {
		r.report.Left = len(plan) - n
		plan = plan[:n]
	}
	if err := r.audit(ctx, plan); err != nil {
		return err
	}
	m := newMeter(r.o.Progress, "repack", "bytes", r.o.Memory.done+total)
	m.p.Done = r.o.Memory.done
	for _, w := range plan {
		if err := r.pack(ctx, w, m); isDamage(err) {
			r.leave(w, err)
		} else if err != nil {
			return fmt.Errorf("pack %d: %w", w.number, err)
		}
		r.o.Memory.done += w.bytes
		m.add(r.o.Memory.done - m.p.Done)
	}
	r.report.Damaged = len(r.damaged)
	// Only now, when it is said of them: of a call that ends before, the next one finds them again.
	for _, w := range r.left {
		r.o.Memory.weighed[w.number] = w
	}
	return errors.Join(r.damaged...)
}

// dropUnlisted removes packs that roots listed, and no root lists any more.
func (r *repacker) dropUnlisted(ctx context.Context, were []uint64) error {
	c := &collector{s: r.s}
	if err := c.list(); err != nil {
		return err
	}
	numbers := slices.DeleteFunc(slices.Clone(were), func(n uint64) bool {
		_, listed := searchUint64(c.listed, n)
		return listed
	})
	if len(numbers) == 0 {
		return nil
	}
	if err := c.audit(ctx, numbers, nil); err != nil {
		return err
	}
	for _, number := range numbers {
		info, there := r.s.packs.info(number)
		if !there {
			continue
		}
		if _, err := r.s.packs.doom(ctx, number); err != nil {
			return fmt.Errorf("remove pack %d: %w", number, err)
		}
		r.report.BytesBefore += info.bytes
	}
	return nil
}

// leave leaves a pack as it is, because something in it is damaged.
func (r *repacker) leave(w weight, err error) {
	r.damaged = append(r.damaged, fmt.Errorf("pack %d: %w", w.number, err))
	w.urgency = 0
	r.left = append(r.left, w)
}

// audit looks again at the packs of which something will be dropped, as a collection does.
func (r *repacker) audit(ctx context.Context, plan []weight) error {
	var drops []victim
	for _, w := range plan {
		if w.drops {
			drops = append(drops, victim{number: w.number})
		}
	}
	if len(drops) == 0 || r.o.DryRun {
		return nil
	}
	return r.c.audit(ctx, nil, drops)
}

// pack writes a pack again.
func (r *repacker) pack(ctx context.Context, w weight, m *meter) error {
	u, err := r.weigh(ctx, w)
	if err != nil {
		return err
	}
	if r.o.DryRun {
		r.count(u, u.bytes, u.bytes-u.won())
		return nil
	}
	enc, err := pack.NewEncoder(r.s.file.Profile)
	if err != nil {
		return err
	}
	before, after, err := r.s.renew(ctx, u.number, func(old *pack.Reader, w *pack.Writer) error {
		return r.rewrite(ctx, u, old, w, enc, m)
	}, func(old, renewed *pack.Reader) error {
		if err := u.live.allIn(old, renewed); err != nil {
			return err
		}
		return r.proofread(ctx, old, renewed)
	})
	if err != nil {
		return err
	}
	r.count(u, before.bytes, after.bytes)
	delete(r.o.Memory.copied, u.number)
	// As good as it gets, until something else is used.
	r.o.Memory.weighed[u.number] = weight{number: u.number, generation: after.generation, bytes: after.bytes}
	return nil
}

// rewrite copies a pack, and waits in between where it must.
func (r *repacker) rewrite(ctx context.Context, u *packUse, old *pack.Reader, w *pack.Writer,
	enc *pack.Encoder, m *meter) error {
	base, all := m.p.Done, max(old.Size(), 1)
	return pack.Rewrite(ctx, old, w, enc, r.s.key, pack.Keep{
		Slot:   u.live.hasSlot,
		Record: u.live.hasRecord,
		Frame:  func(int) bool { return u.live.segment },
		Tier:   u.tier,
		Step: func() error {
			m.add(max(0, base+u.bytes*min(w.StoredBytes(), all)/all-m.p.Done))
			return r.wait(ctx)
		},
	})
}

// wait returns when the work may go on.
func (r *repacker) wait(ctx context.Context) error {
	if r.o.Wait == nil {
		return nil
	}
	err := r.o.Wait(ctx)
	r.stopped = r.stopped || err != nil
	return err
}

// proofread reads everything in a new generation, and compares each page with the hash that the old one
// has for it.
func (r *repacker) proofread(ctx context.Context, old, renewed *pack.Reader) error {
	was, err := old.Hashes()
	if err != nil {
		return err
	}
	is, err := renewed.Hashes()
	if err != nil {
		return err
	}
	for slot := range was {
		if slot >= len(is) || was[slot] != is[slot] {
			return &CorruptError{Pack: renewed.Name(), What: fmt.Sprintf("slot %d", slot), Err: pack.ErrHash}
		}
	}
	var bad error
	err = renewed.Verify(ctx, r.s.key, func(d pack.Damage) { bad = errors.Join(bad, d.Err) }, func(int64) {
		if bad == nil {
			bad = r.wait(ctx)
		}
	})
	return errors.Join(err, bad)
}

// count notes what was done to a pack.
func (r *repacker) count(u *packUse, before, after int64) {
	r.report.Repacked++
	r.report.HotPages += u.pages[pack.TierHot]
	r.report.WarmPages += u.pages[pack.TierWarm]
	r.report.ColdPages += u.pages[pack.TierCold]
	r.report.DroppedPages += u.dead
	r.report.BytesBefore += before
	r.report.BytesAfter += after
}
