package index

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// roots checks every checkpoint.
func (c *checker) roots(ctx context.Context) error {
	c.s.cat.mu.Lock()
	var entries []*catalogEntry
	for _, name := range c.s.cat.names() {
		if c.wants(name) {
			entries = append(entries, c.s.cat.m[name])
		}
	}
	c.s.cat.mu.Unlock()
	m := newMeter(c.o.Progress, "check checkpoints", "checkpoints", int64(len(entries)))
	for _, e := range entries {
		if err := c.entry(ctx, e); err != nil {
			return err
		}
		m.add(1)
	}
	return nil
}

// entry checks one checkpoint. Beside a reader a writer may replace or remove it meanwhile, and collect
// what it had: then what was found of it does not count, and what took its place is checked. A reader
// has another entry after each Refresh of what is damaged, or where blobs have no tags; so there is a
// last look.
func (c *checker) entry(ctx context.Context, e *catalogEntry) error {
	for try := 1; e != nil; try++ {
		before := len(c.report.Problems)
		unread, err := c.entryOnce(ctx, e)
		if c.s.readOnly && (err != nil || len(c.report.Problems) > before) {
			if err := c.s.Refresh(ctx); err != nil {
				return err
			}
		}
		if now := c.s.entry(e.Name); !now.same(e) && (now == nil || try < readTries) {
			c.report.Problems = c.report.Problems[:before]
			delete(c.stale, e.Name)
			e = now
			continue
		}
		return c.noteEntry(e, unread, err)
	}
	return nil
}

// entryOnce is one look at a checkpoint. unread says that its root cannot be read; an error is the
// root's.
func (c *checker) entryOnce(ctx context.Context, e *catalogEntry) (unread bool, err error) {
	if e.root.odd {
		return true, e.err
	}
	r, err := c.s.readRoot(ctx, e.Name, e.Generation)
	if err == nil {
		err = c.rootBlob(ctx, e)
	}
	if err != nil {
		return true, err
	}
	return false, c.root(ctx, r)
}

// noteEntry notes the result of checking a checkpoint.
func (c *checker) noteEntry(e *catalogEntry, unread bool, err error) error {
	c.report.Checkpoints++
	if err := c.note(e.Name, false, err); err != nil {
		return err
	}
	if unread {
		c.unread++
		c.report.Lost = append(c.report.Lost, Loss{Checkpoint: e.Name, All: true})
	} else {
		c.entries = append(c.entries, e)
	}
	return nil
}

// rootBlob checks what reading a root does not need: every byte of the blob.
func (c *checker) rootBlob(ctx context.Context, e *catalogEntry) error {
	name := rootName(e.Name, e.Generation)
	r, err := openPackBlob(ctx, c.s.blobs, c.s.dec, name, rootNumber, e.Generation)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Verify(ctx, c.s.key, func(d pack.Damage) {
		times := d.Kind == pack.DamagedRecord && r.Record(d.Number).Kind == kindDues
		if times {
			c.stale[e.Name] = true // which a repair writes again, and the root with it
		}
		c.problem(e.Name, name, times || d.Kind == pack.DamagedHeader, "%v", d.Err)
	}, nil)
}

// root checks what a root refers to.
func (c *checker) root(ctx context.Context, r *root) error {
	c.packs.of(r)
	foreign := false
	for _, n := range r.top.packs {
		_, err := c.packs.get(n)
		if n == r.top.segment && isDamage(err) {
			c.stale[r.Name] = true
		}
		if errors.Is(err, ErrOtherPack) {
			foreign, c.foreign[n] = true, true
		}
		if err := c.note(r.Name, n == r.top.segment, err); err != nil {
			return err
		}
	}
	if foreign {
		// What was found out about nodes holds for the packs of other roots, and not for those of this one.
		defer func(seen map[uint64]*nodeCheck) { c.seen = seen }(c.seen)
		c.seen = map[uint64]*nodeCheck{}
	}
	for i, ref := range r.top.branches {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ref == 0 {
			continue
		}
		err := c.branch(ref).of(r)
		if err != nil {
			err = fmt.Errorf("memory from page %d on: %w", i*branchPages, err)
		}
		if err := c.note(r.Name, false, err); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(r.FileParts) {
		if err := c.note(r.Name, false, c.file(r, name)); err != nil {
			return err
		}
	}
	return nil
}

// file checks a file of a checkpoint.
func (c *checker) file(r *root, name string) error {
	parts := r.FileParts[name]
	hasher := pack.NewHasher(c.s.key)
	var sums []byte
	for i := range parts.Parts {
		b, err := r.part(c.nodes, parts, i)
		if err != nil {
			return fmt.Errorf("file %s: %w", name, err)
		}
		sum := hasher.Sum(b)
		sums = append(sums, sum[:]...)
	}
	if sum := hasher.Sum(sums); parts.Sum != hex.EncodeToString(sum[:]) {
		return &CorruptError{Pack: rootName(r.Name, r.Generation), What: "file " + name, Err: pack.ErrHash}
	}
	return nil
}

// nodeCheck is what was found out about a node. Checkpoints share nodes, and each of them must list
// the packs that are referred to.
type nodeCheck struct {
	err   error    // the first thing that is wrong with it
	packs []uint64 // that its pages and nodes lie in, ascending
}

// of says what is wrong with a node for one of its checkpoints.
func (n *nodeCheck) of(r *root) error {
	if n.err != nil {
		return n.err
	}
	for _, number := range n.packs {
		if !r.top.refersTo(number) {
			return &CorruptError{Pack: rootName(r.Name, r.Generation),
				What: fmt.Sprintf("list of packs: %d is missing", number)}
		}
	}
	return nil
}

// refers notes a pack.
func (n *nodeCheck) refers(number uint64) {
	if i, ok := slices.BinarySearch(n.packs, number); !ok {
		n.packs = slices.Insert(n.packs, i, number)
	}
}

// branch checks a branch and its leaves: that they can be read, and that the pages are there.
func (c *checker) branch(ref uint64) *nodeCheck {
	if n := c.seen[ref]; n != nil {
		return n
	}
	n := &nodeCheck{}
	n.refers(ref >> 24)
	var b branch
	if n.err = readBranch(c.nodes, ref, &b); n.err == nil {
		for i, ch := range &b {
			if ch.zero() {
				continue
			}
			leaf := c.leaf(ch)
			for _, number := range leaf.packs {
				n.refers(number)
			}
			if leaf.err != nil && (n.err == nil || !isDamage(leaf.err)) {
				n.err = fmt.Errorf("leaf %d: %w", i, leaf.err)
			}
		}
	}
	c.seen[ref] = n
	return n
}

func (c *checker) leaf(ch child) *nodeCheck {
	if n := c.seen[ch.ref]; ch.ref != 0 && n != nil {
		return n
	}
	n := &nodeCheck{}
	if ch.ref != 0 {
		n.refers(ch.ref >> 24)
		c.seen[ch.ref] = n
	}
	var refs leaf
	base, err := readLeaf(c.nodes, ch, &refs)
	if n.err = err; err != nil {
		return n
	}
	if base != 0 {
		n.refers(base >> 24)
	}
	for i, ref := range refs {
		if ref == 0 {
			continue
		}
		n.refers(ref >> 24)
		if err := c.there(ref, i); err != nil && n.err == nil {
			n.err = err
		}
	}
	return n
}

// there says whether page i of a leaf is there.
func (c *checker) there(ref uint64, i int) error {
	p, err := c.packs.get(ref >> 24)
	if err != nil {
		return err
	}
	if slot := pack.Ref(ref).Slot(); p.Dead(slot) {
		return &CorruptError{Pack: p.Name(), What: fmt.Sprintf("slot %d", slot),
			Err: fmt.Errorf("page %d of a leaf refers to it, and the pack does not have it", i)}
	}
	return nil
}

// losses finds out what the damage costs which checkpoint: it looks at every page of every one.
func (c *checker) losses(ctx context.Context) error {
	m := newMeter(c.o.Progress, "count losses", "checkpoints", int64(len(c.entries)))
	for _, e := range c.entries {
		r, err := c.s.readRoot(ctx, e.Name, e.Generation)
		if err == nil {
			err = c.loss(ctx, r)
		}
		if err != nil && c.s.gone(e) {
			continue
		}
		if err != nil {
			return err
		}
		m.add(1)
	}
	c.judge()
	return nil
}

// loss finds out what one checkpoint lost.
func (c *checker) loss(ctx context.Context, r *root) error {
	c.packs.of(r)
	lost := &lostPages{}
	err := eachPlaced(ctx, c.nodes, r.top, lost, func(gfn, ref uint64) error {
		if err := c.lostPage(ref); err != nil && !lost.add(gfn, 1, err) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	loss := Loss{Checkpoint: r.Name, Pages: lost.count, First: firstOf(lost.runs(), namedPages)}
	for _, name := range sortedKeys(r.FileParts) {
		if err := c.file(r, name); isDamage(err) || name == fileWorkingSet && r.lostSet != nil {
			loss.Files = append(loss.Files, name)
		} else if err != nil {
			return err
		}
	}
	if loss.Pages > 0 || len(loss.Files) > 0 {
		c.report.Lost = append(c.report.Lost, loss)
	}
	return nil
}

var errBadPage = errors.New("damaged")

// lostPage says why the page at ref cannot be read; nil if it can.
func (c *checker) lostPage(ref uint64) error {
	number, slot := ref>>24, pack.Ref(ref).Slot()
	p, err := c.packs.get(number)
	if err != nil {
		return err
	}
	if d := c.damaged[number]; d != nil && d.slots.has(slot) {
		d.needed.add(slot)
		return &CorruptError{Pack: pack.Ref(ref).String(), What: "page", Err: errBadPage}
	}
	if p.Dead(slot) {
		c.damage(number).needed.add(slot)
		return &CorruptError{Pack: p.Name(), What: fmt.Sprintf("slot %d", slot), Err: pack.ErrDead}
	}
	return nil
}

// harmless says whether what is damaged costs no checkpoint anything. While a root cannot be read,
// nobody knows.
func (c *checker) harmless(f fact) bool {
	switch f.kind {
	case pack.DamagedHeader, pack.DamagedFrame:
		return true
	case pack.DamagedSlot:
		return c.unread == 0 && !c.damaged[f.pack].needed.meets(f.numbers)
	case pack.DamagedRecord:
		needed := c.records[f.pack]
		return c.unread == 0 && (needed == nil || !needed.meets(f.numbers))
	}
	return false
}

// eachPlaced calls fn for every page of a page map that is not zero, ascending. It reads branch after
// branch, and keeps none.
func eachPlaced(ctx context.Context, n nodes, top *mapTop, lost *lostPages,
	fn func(gfn, ref uint64) error) error {
	ld := branchLoader{nodes: n, packs: top.packs, lost: lost}
	one := &pageMap{pages: top.pages, packs: top.packs, branches: make([]*branchMap, len(top.branches))}
	for i := range top.branches {
		b, err := ld.number(ctx, top, i)
		if err != nil {
			return err
		}
		one.branches[i] = b
		one.each(func(gfn, place uint64) {
			if err == nil {
				err = fn(gfn, one.packs[place>>24]<<24|place&(pack.MaxSlots-1))
			}
		})
		one.branches[i] = nil
		if err != nil {
			return err
		}
	}
	return nil
}
