package index

import (
	"cmp"
	"context"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// RepackMemory is what calls of Store.Repack have found out: what checkpoints refer to and use, and which
// packs need nothing. It holds as long as no checkpoint is removed or replaced, and grows with new ones.
type RepackMemory struct {
	roots   map[rootKey]bool
	torn    map[rootKey]bool // of these: something in the root itself is damaged, and stays as it is
	live    *liveSet
	tiers   *tierMap
	weighed map[uint64]weight
	// gathered: versions of pages that belong together lie together.
	gathered bool
	copied   map[uint64]bool // packs that pages were copied from for that, and are dead in now
	done     int64           // bytes of packs that were repacked, or failed
}

// weight is what is kept of a pack that was looked at.
type weight struct {
	number     uint64
	generation uint32
	bytes      int64
	urgency    int64 // 0: it is as it should be, or cannot be repacked
	drops      bool  // something in it is dead
}

// rootKey tells a root from every other one.
type rootKey struct {
	name string
	root rootInfo
	// entry is of a root that this Store has written: there is no tag of its blob yet, so that what else is
	// known of it may be the same of the one that replaces it.
	entry *catalogEntry
}

func keyOf(e *catalogEntry) rootKey {
	k := rootKey{name: e.Name, root: e.root}
	if e.root.tag == "" {
		k.entry = e
	}
	return k
}

// NewRepackMemory is one that knows nothing.
func NewRepackMemory() *RepackMemory {
	m := &RepackMemory{copied: map[uint64]bool{}}
	m.forget()
	return m
}

func (m *RepackMemory) forget() {
	m.gathered = false
	m.roots, m.live, m.tiers = map[rootKey]bool{}, newLiveSet(), newTierMap()
	m.torn = map[rootKey]bool{}
	m.weighed = map[uint64]weight{}
}

// meet prepares the memory for the checkpoints that there are now.
func (m *RepackMemory) meet(entries []*catalogEntry) {
	now := map[rootKey]bool{}
	for _, e := range entries {
		now[keyOf(e)] = true
	}
	for k := range m.roots {
		if !now[k] {
			m.forget() // what only it used is not used any more
			return
		}
	}
}

// packs returns the packs that may be repacked, ascending.
func (r *repacker) packs() ([]uint64, error) {
	r.s.cat.mu.Lock()
	defer r.s.cat.mu.Unlock()
	wanted := map[uint64]bool{}
	for _, name := range r.o.Names {
		e, err := r.s.cat.get(name)
		if err != nil {
			return nil, err
		}
		for _, n := range e.packs {
			wanted[n] = true
		}
	}
	for name, e := range r.s.cat.m {
		switch {
		case len(r.o.Names) == 0:
			for _, n := range e.packs {
				wanted[n] = true
			}
		case r.o.Own && !slices.Contains(r.o.Names, name):
			for _, n := range e.packs {
				delete(wanted, n)
			}
		}
	}
	for _, e := range r.s.cat.m {
		delete(wanted, e.segment)
	}
	return sortedKeys(wanted), nil
}

// mark finds out what is live, and how it is used.
func (r *repacker) mark(ctx context.Context) error {
	m := r.o.Memory
	r.c = &collector{s: r.s}
	if err := r.c.list(); err != nil {
		return err
	}
	m.meet(r.c.entries)
	r.c.live = m.live
	if len(m.roots) == 0 {
		r.c.o.Progress = r.o.Progress // later there is not much to do
	}
	r.c.known = func(e *catalogEntry) bool { return m.roots[keyOf(e)] }
	r.c.also = func(n nodes, e *catalogEntry, root *root) error {
		if err := r.wait(ctx); err != nil {
			return err
		}
		var seen []Run
		if r.o.Seen != nil {
			seen = r.o.Seen(e.Checkpoint)
		}
		m.roots[keyOf(e)] = true
		if root.whole() != nil {
			m.torn[keyOf(e)] = true
		}
		m.weighed, m.gathered = map[uint64]weight{}, false
		return m.tiers.addRoot(n, root, seen)
	}
	err := r.c.walk(ctx)
	if err != nil {
		m.forget() // it may have half of a checkpoint
	}
	return err
}

// plan looks at packs, and returns those that are worth being repacked, the most urgent ones first.
func (r *repacker) plan(ctx context.Context, numbers []uint64) (plan []weight, err error) {
	m := newMeter(r.o.Progress, "look", "packs", int64(len(numbers)))
	for _, number := range numbers {
		w, err := r.look(ctx, number)
		if err != nil {
			return nil, err
		}
		if w.urgency > 0 {
			plan = append(plan, w)
		}
		r.report.Packs++
		m.add(1)
	}
	slices.SortStableFunc(plan, func(a, b weight) int { return cmp.Compare(b.urgency, a.urgency) })
	return plan, nil
}

// look finds out whether a pack is worth being repacked, if that is not known.
func (r *repacker) look(ctx context.Context, number uint64) (weight, error) {
	info, ok := r.s.packs.info(number)
	if w, known := r.o.Memory.weighed[number]; !ok || known && w.generation == info.generation {
		return w, nil
	}
	w := weight{number: number, generation: info.generation, bytes: info.bytes}
	if err := r.wait(ctx); err != nil {
		return w, err
	}
	u, err := r.weigh(ctx, w)
	switch {
	case isDamage(err):
		r.leave(w, err)
		return w, nil
	case err != nil:
		return w, err
	case u.worth(), r.o.Memory.copied[number] && u.deadBytes >= u.bytes/copiedShare:
		w.urgency, w.drops = u.urgency(), u.dead > 0 || u.deadRecords
	}
	r.o.Memory.weighed[number] = w
	return w, nil
}

// packUse is how the pages of a pack are used, and how they are stored.
type packUse struct {
	number uint64
	bytes  int64
	live   *livePack
	want   []pack.Tier // of each slot; TierKeep for one that is dead, or is stored as it should be

	pages       [4]uint64 // live ones, by the tier that they should have
	misplaced   uint64    // live ones in clusters that should not be there
	dead        uint64    // pages
	deadRecords bool

	deadBytes int64
	cold      []uint32 // slots whose pages should be in clusters, and are not
	coldBytes int64    // of these
	coldSaved int64    // of these, by clusters; about
	hotBytes  int64    // of pages that should be quick to decode, and are not
}

func (u *packUse) tier(slot uint32) pack.Tier { return u.want[slot] }

// weigh looks at a pack, which must be one that the checkpoints mean.
func (r *repacker) weigh(ctx context.Context, w weight) (*packUse, error) {
	p, done, err := r.s.packs.use(ctx, w.number, 0)
	if err != nil {
		return nil, err
	}
	defer done()
	for _, e := range r.c.entries {
		if err := hasID(p, e.ids[w.number]); err != nil {
			return nil, err
		}
	}
	u := &packUse{
		number: w.number, bytes: p.Size(), live: r.c.live.packs[w.number],
		want: make([]pack.Tier, p.Slots()),
	}
	if u.live == nil {
		u.live = &livePack{}
	}
	if p.Slots() == 0 {
		return u, nil // nodes, files, or a segment
	}
	for b := range p.Blocks() {
		r.block(u, p, b)
	}
	for i := range p.Records() {
		if stored := p.Record(i).Stored; stored > 0 && !u.live.hasRecord(i) {
			u.deadRecords = true
			u.deadBytes += stored
		}
	}
	return u, r.gauge(u, p)
}

// block looks at a block of a pack. If a page of it is used, the others are near.
func (r *repacker) block(u *packUse, p *pack.Reader, b int) {
	t := r.o.Memory.tiers
	first, count := p.BlockSlots(b)
	near := r.near(u.live, u.number, first, count)
	for slot := first; slot < first+count; slot++ {
		if p.Dead(slot) {
			continue
		}
		size := int64(p.StoredBytes(slot))
		if !u.live.hasSlot(slot) {
			u.dead++
			u.deadBytes += size
			continue
		}
		tier := pack.TierCold
		switch {
		case has(t.hot, u.number, slot):
			tier = pack.TierHot
		case near || has(t.seen, u.number, slot):
			tier = pack.TierWarm
		}
		u.pages[tier]++
		_, clustered := p.ClusterOf(slot)
		switch {
		case tier == pack.TierCold && size >= PageSize:
			// It does not compress: in a cluster it would only be slower.
		case tier == pack.TierCold && !clustered:
			u.want[slot] = tier
			u.cold = append(u.cold, slot)
			u.coldBytes += size
		case tier != pack.TierCold && clustered:
			u.want[slot] = tier
			u.misplaced++
		case tier == pack.TierHot && !p.Quick(slot):
			u.want[slot] = tier
			u.hotBytes += size
		}
	}
}

// near says whether one of these pages of a block is hot.
func (r *repacker) near(live *livePack, number uint64, first, count uint32) bool {
	for slot := first; slot < first+count; slot++ {
		if live.hasSlot(slot) && has(r.o.Memory.tiers.hot, number, slot) {
			return true
		}
	}
	return false
}

// gauged is of how many clusters of a pack it is found out what they save, so that this is known about.
const gauged = 12

// gauge finds out what clusters save of the pages that should be in them: of some, all over the pack. Rewrite
// does better where it finds pages that are like one another.
func (r *repacker) gauge(u *packUse, p *pack.Reader) error {
	if most := u.deadBytes + u.coldBytes*3/4; len(u.cold) == 0 || most < u.bytes/worthShare {
		return nil // whatever they save
	}
	if r.gauged == nil {
		var err error
		if r.gauged, err = pack.NewClusterGauge(r.s.file.Profile); err != nil {
			return err
		}
	}
	n := min(r.gauged.Pages(), len(u.cold))
	step := max(n, len(u.cold)/gauged)
	now, then := int64(0), int64(0)
	pages := make([]byte, n*PageSize)
	for from := 0; from+n <= len(u.cold); from += step {
		slots := u.cold[from : from+n]
		if err := readSome(p, slots, pages); err != nil {
			return err
		}
		for _, slot := range slots {
			now += int64(p.StoredBytes(slot))
		}
		then += int64(r.gauged.Bytes(pages))
	}
	u.coldSaved = max(u.coldBytes*(now-then)/max(now, 1), 0)
	return nil
}

// readSome reads the pages of slots, which ascend: by one read where they follow one another.
func readSome(p *pack.Reader, slots []uint32, pages []byte) error {
	if n := len(slots); slots[n-1]-slots[0] == uint32(n-1) {
		var bad pack.BadSlots
		p.ReadSlots(slots[0], pages, &bad)
		for _, slot := range bad.Slots() {
			return bad.Err(slot)
		}
		return nil
	}
	for i, slot := range slots {
		if err := p.ReadPage(slot, pages[i*PageSize:][:PageSize]); err != nil {
			return err
		}
	}
	return nil
}

const (
	// clusterSaves is what clusters save of pages, one part in so many, where nobody has looked at them.
	clusterSaves = 5
	// quickCosts is what units that are quick to decode take more, about: one part in so many.
	quickCosts = 3
	// worthShare: so little of a pack must be won for it to be written again: one part in so many.
	worthShare = 32
	// copiedShare is worthShare where versions of pages were copied out of a pack: until they go from there
	// they are stored twice.
	copiedShare = 1024
	// misplacedShare: so few of its pages must be in clusters although they are used: one in so many.
	misplacedShare = 256
)

// saved is how many bytes the pack has that it should not have, about.
func (u *packUse) saved() int64 { return u.deadBytes + u.coldSaved }

// won is by how many bytes the pack would become smaller, about.
func (u *packUse) won() int64 { return u.saved() - u.hotBytes/quickCosts }

// worth says whether a pack should be written again: because that saves a thirty-second of it, or because
// of its pages one of 256 is waited for longer than it should. That pages of working sets are not as quick
// to decode as they could be is mended with the rest, and is no reason by itself: they come out of segments
// as a rule.
func (u *packUse) worth() bool {
	live := u.pages[pack.TierHot] + u.pages[pack.TierWarm] + u.pages[pack.TierCold]
	return u.saved() > 0 && u.saved() >= u.bytes/worthShare ||
		u.misplaced > 0 && u.misplaced >= live/misplacedShare
}

// urgency orders packs: by what is won, and pages that are waited for count as if they were.
func (u *packUse) urgency() int64 { return u.saved() + int64(u.misplaced)*PageSize }
