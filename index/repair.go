package index

import (
	"context"
	"errors"
	"fmt"

	"github.com/thawfs/thaw/index/pack"
)

// Repair is one thing that was repaired.
type Repair struct {
	Checkpoint string `json:"checkpoint,omitempty"` // whose segment was made again
	Pack       string `json:"pack,omitempty"`       // that was written again
	Pages      int    `json:"pages,omitempty"`      // that were brought back
	What       string `json:"what"`
}

// repairer is one round of repairs. A pack has the hash of each of its pages, also of lost and dropped
// ones. Any bytes with that hash are the page.
type repairer struct {
	c      *checker
	s      *Store
	packs  *lazyPacks
	hasher *pack.Hasher
	plans  map[uint64]*packPlan
	found  map[pack.Hash][]byte // what is wanted; nil: not found yet
	left   int                  // of these, not found
	room   int                  // pages that may still be kept
	done   []Repair
}

// packPlan is what must be repaired in one pack.
type packPlan struct {
	hashes []pack.Hash
	proved bool     // these are not those that are stored, and are right
	slots  []uint32 // whose pages are wanted
}

// maxFound bounds the pages that one round keeps (128 MiB).
const maxFound = 1 << 15

// repair repairs what it can. more says that another round may repair more.
func (c *checker) repair(ctx context.Context) (done []Repair, more bool, err error) {
	r := &repairer{
		c: c, s: c.s, packs: newLazyPacks(ctx, c.s.packs), hasher: pack.NewHasher(c.s.key),
		plans: map[uint64]*packPlan{}, found: map[pack.Hash][]byte{}, room: maxFound,
	}
	defer r.packs.release()
	for _, number := range sortedKeys(c.damaged) {
		if err := r.plan(number); err != nil {
			return nil, false, err
		}
	}
	if err := r.search(ctx); err != nil {
		return nil, false, err
	}
	r.packs.release() // they get new generations
	for _, number := range sortedKeys(r.plans) {
		if err := r.pack(ctx, number); err != nil {
			return r.done, false, err
		}
	}
	for _, name := range sortedKeys(c.stale) {
		if err := r.segment(ctx, name); err != nil {
			return r.done, false, err
		}
	}
	return r.done, r.room == 0 && len(r.done) > 0, nil
}

// plan finds out which pages a pack needs.
func (r *repairer) plan(number uint64) error {
	d := r.c.damaged[number]
	if d.err != nil || r.c.foreign[number] {
		return nil // without its directory its content is unknown; another pack is not to be repaired
	}
	p, err := r.packs.get(number)
	if err != nil {
		return err
	}
	plan := &packPlan{}
	if plan.hashes, err = p.ReadHashes(0, p.Slots()); isDamage(err) {
		return nil
	} else if err != nil {
		return err
	}
	if d.hashes {
		plan.proved = r.prove(p, plan)
	}
	for slot := range uint32(p.Slots()) {
		if !d.slots.has(slot) && !d.needed.has(slot) {
			continue
		}
		plan.slots = append(plan.slots, slot)
		r.found[plan.hashes[slot]] = nil
		r.left = len(r.found)
	}
	r.plans[number] = plan
	return nil
}

// prove computes the hashes of a pack again from its pages, and says whether they are right: the
// checksum over all hashes must match.
func (r *repairer) prove(p *pack.Reader, plan *packPlan) bool {
	hashes := append([]pack.Hash(nil), plan.hashes...)
	_ = p.EachPage(func(slot uint32, page []byte, err error) error {
		if err == nil {
			hashes[slot] = r.hasher.Sum(page)
		}
		return nil
	})
	if !p.AreHashes(hashes) {
		return false
	}
	plan.hashes = hashes
	return true
}

// full says whether there is nothing to look for, or no room for it.
func (r *repairer) full() bool { return r.left == 0 || r.room == 0 }

// take keeps a page if it is wanted.
func (r *repairer) take(page []byte) {
	h := r.hasher.Sum(page)
	if have, wanted := r.found[h]; !wanted || have != nil || r.full() {
		return
	}
	r.found[h] = append([]byte(nil), page...)
	r.left--
	r.room--
}

// pack writes a pack again, with the pages that were found.
func (r *repairer) pack(ctx context.Context, number uint64) error {
	plan, d := r.plans[number], r.c.damaged[number]
	back := &bitmap{}
	pages := 0
	for _, slot := range plan.slots {
		if r.found[plan.hashes[slot]] != nil {
			back.add(slot)
			pages++
		}
	}
	if pages == 0 && !plan.proved && !d.mend {
		return nil
	}
	enc, err := pack.NewEncoder(r.s.file.Profile)
	if err != nil {
		return err
	}
	_, info, err := r.s.renew(ctx, number, func(old *pack.Reader, w *pack.Writer) error {
		return pack.Rewrite(ctx, old, w, enc, r.s.key, pack.Keep{
			Hashes: plan.hashes,
			Page: func(slot uint32) []byte {
				if back.has(slot) {
					return r.found[plan.hashes[slot]]
				}
				return nil
			},
			// What is still damaged is dead from now on; reading it stays an error.
			Lost: func(err error) {
				r.s.log.Warn("a damaged page could not be repaired: no copy of it was found", "err", err)
			},
		})
	}, func(old, renewed *pack.Reader) error { return r.right(plan, d, back, old, renewed) })
	if err != nil {
		return err
	}
	r.done = append(r.done, Repair{
		Pack: pack.Name(number, info.generation), Pages: pages, What: "the pack was written again",
	})
	return r.s.hints.do(ctx, func(k keyStore) error {
		// The index may know pages that are gone now, and does not know the repaired ones.
		rows := []row{{metaKey(metaStale), []byte{1}}, packRowOf(number, info)}
		if err := r.s.indexPack(ctx, k, number); err != nil {
			return err
		}
		return updateAll(ctx, k, rows)
	})
}

// right checks that a new generation has everything that was good in the old one, and the repaired
// pages.
func (r *repairer) right(plan *packPlan, d *packDamage, back *bitmap, old, renewed *pack.Reader) error {
	wanted := func(slot uint32) bool { return back.has(slot) || !old.Dead(slot) && !d.slots.has(slot) }
	for slot := range uint32(old.Slots()) {
		if wanted(slot) && renewed.Dead(slot) {
			return &CorruptError{Pack: renewed.Name(), What: fmt.Sprintf("slot %d", slot), Err: pack.ErrDead}
		}
	}
	err := renewed.EachPage(func(slot uint32, page []byte, err error) error {
		if err != nil || !wanted(slot) {
			return err
		}
		if r.hasher.Sum(page) != plan.hashes[slot] && (plan.proved || !d.hashes) {
			return &CorruptError{Pack: renewed.Name(), What: fmt.Sprintf("slot %d", slot), Err: pack.ErrHash}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range old.Records() {
		if _, err := old.ReadRecord(i, nil); err == nil && renewed.Record(i).Stored == 0 {
			return &CorruptError{Pack: renewed.Name(), What: fmt.Sprintf("record %d", i), Err: pack.ErrDead}
		}
	}
	return nil
}

// segment makes the segment of a checkpoint again. If a page of it is lost, the segment stays as it
// is, and its good frames are still used.
func (r *repairer) segment(ctx context.Context, name string) error {
	text, err := r.s.ReadFile(ctx, name, fileWorkingSet)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return ignoreDamage(err)
	}
	m, err := r.s.OpenImage(ctx, name)
	if err != nil {
		return ignoreDamage(err)
	}
	defer m.Close()
	if m.root.lostSet != nil {
		return nil // it would be gone for good
	}
	if _, err := r.s.replaceWorkingSet(ctx, m, text, m.root.setRuns, m.root.dues); err != nil {
		return ignoreDamage(err)
	}
	r.done = append(r.done, Repair{Checkpoint: name, What: "the segment was made again"})
	return nil
}

// ignoreDamage returns errors that are no damage. Damage stays, and the next check reports it.
func ignoreDamage(err error) error {
	if isDamage(err) {
		return nil
	}
	return err
}
