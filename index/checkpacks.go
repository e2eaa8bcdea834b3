package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/thawfs/thaw/index/pack"
)

// allPacks checks every pack.
func (c *checker) allPacks(ctx context.Context) error {
	numbers, _ := c.s.packs.numbers()
	if len(c.o.Names) > 0 {
		numbers = slices.DeleteFunc(slices.Clone(numbers), func(n uint64) bool { return !c.refers(n) })
	}
	var total int64
	for _, n := range numbers {
		info, _ := c.s.packs.info(n)
		total += info.bytes
	}
	stage := "check packs"
	if c.o.ReadData {
		stage = "read packs"
	}
	m := newMeter(c.o.Progress, stage, "bytes", total)
	for _, n := range numbers {
		if err := c.pack(ctx, n, m); err != nil {
			return err
		}
	}
	return nil
}

// pack checks one pack: its directory, hashes, and that the index knows it; with ReadData all of
// it.
func (c *checker) pack(ctx context.Context, number uint64, m *meter) error {
	info, ok := c.s.packs.info(number)
	if !ok {
		return nil
	}
	c.report.Packs++
	base := m.p.Done
	defer func() { m.add(base + info.bytes - m.p.Done) }()
	p, release, err := c.packs.hold(number)
	if isGone(err) && !c.s.packs.has(number) {
		return nil // a writer collected it meanwhile
	}
	if isDamage(err) {
		c.damage(number).err = err
		return c.note("", c.unread == 0 && !c.listed(number), err)
	}
	if err != nil {
		return err
	}
	defer release()
	live := uint64(0)
	for slot := range p.Slots() {
		if !p.Dead(uint32(slot)) {
			live++
		}
	}
	c.report.Pages += live
	if c.o.ReadData {
		err := p.Verify(ctx, c.s.key, func(d pack.Damage) { c.found(number, p.Name(), d) },
			func(done int64) { m.add(base + min(done, info.bytes) - m.p.Done) })
		if err != nil {
			return err
		}
		c.report.PagesRead += live
	}
	hashes, err := p.Hashes()
	if isDamage(err) {
		if !c.o.ReadData { // otherwise it is reported already
			c.found(number, p.Name(), pack.Damage{Kind: pack.DamagedHashes, Err: err})
		}
		return nil
	}
	if err != nil {
		return err
	}
	return c.known(ctx, p, hashes)
}

// refers says whether a checkpoint that is looked at refers to a pack.
func (c *checker) refers(number uint64) bool {
	return slices.ContainsFunc(c.entries, func(e *catalogEntry) bool {
		_, ok := slices.BinarySearch(e.packs, number)
		return ok
	})
}

// listed says whether any root that can be read lists a pack.
func (c *checker) listed(number uint64) bool {
	return slices.ContainsFunc(c.entries, func(e *catalogEntry) bool {
		_, ok := slices.BinarySearch(e.packs, number)
		return ok && e.segment != number
	})
}

// found notes damage in a pack. What it costs is found out later.
func (c *checker) found(number uint64, name string, damage pack.Damage) {
	d := c.damage(number)
	switch damage.Kind {
	case pack.DamagedSlot:
		d.slots.add(uint32(damage.Number))
	case pack.DamagedHeader:
		d.mend = true
	case pack.DamagedHashes:
		d.hashes = true
	case pack.DamagedFrame:
		for _, e := range c.entries {
			if e.segment == number {
				c.stale[e.Name] = true
			}
		}
	}
	if last := len(c.facts) - 1; last < 0 || c.facts[last].pack != number || c.facts[last].kind != damage.Kind {
		c.facts = append(c.facts, fact{problem: len(c.report.Problems), pack: number, kind: damage.Kind})
		c.problem("", name, false, "%v", damage.Err)
	}
	f := &c.facts[len(c.facts)-1]
	f.numbers.add(uint32(damage.Number))
	if damage.Kind != pack.DamagedHeader && damage.Kind != pack.DamagedHashes { // of which there is one
		c.report.Problems[f.problem].Parts++
	}
}

// namedRuns is how many runs of damaged parts a problem names.
const namedRuns = 8

// runs returns the first runs of numbers in the set.
func (b bitmap) runs(most int) (runs []PartsRun) {
	for i := range uint32(len(b) * 64) {
		n := uint64(i)
		switch last := len(runs) - 1; {
		case !b.has(i):
		case last >= 0 && runs[last].Number+runs[last].Count == n:
			runs[last].Count++
		case len(runs) == most:
			return runs
		default:
			runs = append(runs, PartsRun{Number: n, Count: 1})
		}
	}
	return runs
}

// judge finds out which damage in packs is harmless, when all that the checkpoints need is known, and says
// how much there is of each kind.
func (c *checker) judge() {
	for _, f := range c.facts {
		p := &c.report.Problems[f.problem]
		p.Harmless = c.harmless(f)
		if p.Parts > 0 { // those in clusters are found in any order
			p.First = f.numbers.runs(namedRuns)
		}
		if p.Parts > 1 {
			p.What = fmt.Sprintf("%d %ss are damaged (%s), the first: %s", p.Parts, f.kind,
				runWords(p), p.What)
		}
	}
}

// runWords names the first damaged parts of a pack.
func runWords(p *Problem) string {
	var words []string
	left := p.Parts
	for _, r := range p.First {
		left -= r.Count
		if r.Count == 1 {
			words = append(words, fmt.Sprint(r.Number))
		} else {
			words = append(words, fmt.Sprintf("%d-%d", r.Number, r.Number+r.Count-1))
		}
	}
	if left > 0 {
		words = append(words, "...")
	}
	return strings.Join(words, ", ")
}

// known checks that the index knows the pages of a pack. What it does not know it is told: that costs
// space until then, and is not damage.
func (c *checker) known(ctx context.Context, p *pack.Reader, hashes []pack.Hash) error {
	if c.s.readOnly {
		return nil
	}
	refs := make([]uint64, len(hashes))
	if err := c.s.hints.pages(ctx, hashes, refs); err != nil {
		return err
	}
	unknown := uint64(0)
	for slot, ref := range refs {
		// Another page with the same key is as good: then that one is found.
		if !p.Dead(uint32(slot)) && (ref == 0 || !isThere(c.packs, rowPage, ref)) {
			unknown++
		}
	}
	if unknown == 0 {
		return nil
	}
	c.report.IndexMended += unknown
	return c.s.hints.do(ctx, func(k keyStore) error { return c.s.indexPack(ctx, k, p.Number()) })
}

// segments compares what every segment holds with the hashes of the pages that it has copies of.
func (c *checker) segments(ctx context.Context) error {
	m := newMeter(c.o.Progress, "check segments", "checkpoints", int64(len(c.entries)))
	for _, e := range c.entries {
		if e.segment != 0 && !c.stale[e.Name] {
			if err := c.segment(ctx, e); err != nil {
				return err
			}
		}
		m.add(1)
	}
	return nil
}

func (c *checker) segment(ctx context.Context, e *catalogEntry) error {
	m, err := c.s.openDamaged(ctx, Version{Name: e.Name, ID: e.ID}, &lostPages{})
	if err != nil {
		if isDamage(err) || c.s.gone(e) {
			return nil // it was found with the root
		}
		return err
	}
	defer m.Close()
	if m.root.lostSet != nil {
		return nil // likewise
	}
	f := &workingSetFeed{m: m}
	if _, err = f.open(); err == nil {
		err = c.frames(ctx, f)
	}
	if isDamage(err) {
		c.stale[e.Name] = true
		return c.note(e.Name, true, fmt.Errorf("segment: %w", err))
	}
	return err
}

// frames compares the frames of a segment. It returns the first thing that is wrong.
func (c *checker) frames(ctx context.Context, f *workingSetFeed) error {
	open, err := f.m.acquire(f.segment)
	if err != nil {
		return err
	}
	defer open.release()
	hasher := pack.NewHasher(c.s.key)
	var frame pack.Frame
	for i := range f.frames {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := open.ReadFrame(i, &frame); err != nil {
			return err
		}
		bad := func(format string, args ...any) error {
			return &CorruptError{Pack: open.Name(), What: fmt.Sprintf("frame %d", i),
				Err: fmt.Errorf(format, args...)}
		}
		if !slices.Equal(frame.GFNs, f.gfns(i)) {
			return bad("it has other pages than the working set")
		}
		for j, gfn := range frame.GFNs {
			page := frame.Pages[j*PageSize:][:PageSize]
			ref := f.m.pages.ref(gfn)
			if ref == 0 && f.m.lost.has(gfn) {
				continue
			}
			if ref == 0 && !isZero(page) {
				return bad("page %d is not zero", gfn)
			}
			if ref == 0 || f.m.unreadable(ref>>24) {
				continue
			}
			want, err := c.hashes.of(ref)
			if isDamage(err) {
				continue // with nothing to compare it with
			}
			if err != nil {
				return err
			}
			if hasher.Sum(page) != want && !c.hashesDamaged(ref>>24) {
				return bad("page %d is another one", gfn)
			}
		}
	}
	return nil
}

func (c *checker) hashesDamaged(number uint64) bool {
	d := c.damaged[number]
	return d != nil && d.hashes
}

// rawHashes returns the hashes of slots as they are stored, and keeps those of some packs.
type rawHashes struct {
	packs *lazyPacks
	m     map[uint64][]pack.Hash
}

// maxRawHashes is how many packs it keeps them of (1 MiB for a pack, as a rule).
const maxRawHashes = 32

func newRawHashes(packs *lazyPacks) *rawHashes {
	return &rawHashes{packs: packs, m: map[uint64][]pack.Hash{}}
}

// of returns the hash of a page.
func (h *rawHashes) of(ref uint64) (pack.Hash, error) {
	number, slot := ref>>24, int(pack.Ref(ref).Slot())
	hashes, ok := h.m[number]
	if !ok {
		p, err := h.packs.get(number)
		if err != nil {
			return pack.Hash{}, err
		}
		if hashes, err = p.ReadHashes(0, p.Slots()); err != nil {
			return pack.Hash{}, err
		}
		if len(h.m) >= maxRawHashes {
			clear(h.m)
		}
		h.m[number] = hashes
	}
	if slot >= len(hashes) {
		return pack.Hash{}, &CorruptError{Pack: pack.Ref(ref).String(), What: "hash",
			Err: errors.New("there is none")}
	}
	return hashes[slot], nil
}
