package index

import (
	"context"
	"errors"
	"fmt"

	"github.com/thawfs/thaw/index/pack"
)

// CheckOptions is how closely to look.
type CheckOptions struct {
	// ReadData decodes every page and compares it with its hash.
	ReadData bool
	// Rebuild throws the Badger index away first and makes it again from packs and checkpoints.
	Rebuild  bool
	Progress func(Progress)
}

// CheckReport is what was looked at and what is wrong with it.
type CheckReport struct {
	Checkpoints int    `json:"checkpoints"`
	Packs       int    `json:"packs"`
	Pages       uint64 `json:"pages"`      // stored pages in the directories of packs
	PagesRead   uint64 `json:"pages_read"` // with ReadData
	IndexKeys   uint64 `json:"index_keys"` // page hashes that Badger knows
	// IndexMended is how many pages the index did not know, and was told. No damage: they would have
	// been stored again when they came again.
	IndexMended uint64 `json:"index_mended,omitempty"`
	// NoIndex says why there is no Badger index to check: no room for it, for example. No damage: it
	// comes back when there can be one. A reader has none, and does not look.
	NoIndex  string    `json:"no_index,omitempty"`
	Rebuilt  bool      `json:"rebuilt"`
	Problems []Problem `json:"problems"`
}

// OK is whether nothing is wrong.
func (r *CheckReport) OK() bool { return len(r.Problems) == 0 }

// Problem is one thing that is wrong.
type Problem struct {
	Checkpoint string `json:"checkpoint,omitempty"` // the one that suffers, where that is known
	Pack       string `json:"pack,omitempty"`
	What       string `json:"what"`
}

// Check verifies the store. What is wrong with it stands in the report; an error means that the
// check could not be made.
//
// It verifies every root, every pack's directory and hashes, every node of every page map, and that
// every page a checkpoint refers to is there; of a store that is open for writing also that the index
// knows every page. With ReadData it reads all that is stored.
func (s *Store) Check(ctx context.Context, o CheckOptions) (CheckReport, error) {
	begin := s.alone
	if o.Rebuild {
		begin = s.write
	}
	done, err := begin(ctx)
	if err != nil {
		return CheckReport{}, err
	}
	defer done()
	c := &checker{s: s, o: o, packs: newLazyPacks(ctx, s.packs), seen: map[uint64]error{}}
	c.report.Problems = []Problem{}
	defer c.packs.release()
	if err := c.run(ctx); err != nil {
		return c.report, fmt.Errorf("check: %w", err)
	}
	return c.report, nil
}

// checker is one check.
type checker struct {
	s      *Store
	o      CheckOptions
	packs  *lazyPacks
	seen   map[uint64]error // nodes that were looked at, and what is wrong with them
	report CheckReport
}

func (c *checker) problem(checkpoint, pack, format string, args ...any) {
	c.report.Problems = append(c.report.Problems, Problem{
		Checkpoint: checkpoint, Pack: pack, What: fmt.Sprintf(format, args...),
	})
}

// note reports damage and swallows it; an error that is none comes back.
func (c *checker) note(checkpoint string, err error) error {
	if !isCorrupt(err) {
		return err
	}
	var damage *CorruptError
	name := ""
	if errors.As(err, &damage) {
		name = damage.Pack
	}
	c.problem(checkpoint, name, "%v", err)
	return nil
}

func (c *checker) run(ctx context.Context) error {
	if c.o.Rebuild {
		if err := c.s.hints.rebuild(ctx, c.o.Progress); err != nil {
			return err
		}
		c.report.Rebuilt = true
	}
	if err := c.roots(ctx); err != nil {
		return err
	}
	numbers, _ := c.s.packs.numbers()
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
	return c.indexKeys(ctx)
}

// roots checks every checkpoint.
func (c *checker) roots(ctx context.Context) error {
	c.s.cat.mu.Lock()
	var entries []*catalogEntry
	for _, name := range c.s.cat.names() {
		entries = append(entries, c.s.cat.m[name])
	}
	c.s.cat.mu.Unlock()
	m := newMeter(c.o.Progress, "check checkpoints", "checkpoints", int64(len(entries)))
	for _, e := range entries {
		r, err := readRoot(ctx, c.s.blobs, c.s.dec, e.Name, e.Generation)
		if err == nil {
			err = c.rootBlob(ctx, e)
		}
		if c.s.gone(e) {
			continue // it was removed meanwhile
		}
		c.report.Checkpoints++
		m.add(1)
		if err == nil {
			err = c.root(ctx, r)
		}
		if err != nil && c.s.readOnly {
			// A writer may have removed it meanwhile, and collected what it had.
			if err := c.s.Refresh(ctx); err != nil {
				return err
			}
			if c.s.gone(e) {
				continue
			}
		}
		if err := c.note(e.Name, err); err != nil {
			return err
		}
	}
	return nil
}

// rootBlob checks what reading a root does not need: every byte of the blob.
func (c *checker) rootBlob(ctx context.Context, e *catalogEntry) error {
	name := rootName(e.Name, e.Generation)
	obj, err := c.s.blobs.Open(ctx, name)
	if err != nil {
		return err
	}
	r, err := pack.Open(obj, name, c.s.dec)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Verify(ctx, c.s.key, func(err error) { c.problem(e.Name, name, "%v", err) }, nil)
}

// root checks what a root refers to.
func (c *checker) root(ctx context.Context, r *root) error {
	for _, n := range r.top.packs {
		_, err := c.packs.get(n)
		if err := c.note(r.Name, err); err != nil {
			return err
		}
	}
	for i, ref := range r.top.branches {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ref == 0 {
			continue
		}
		err, known := c.seen[ref]
		if !known {
			err = c.branch(r, ref)
			c.seen[ref] = err
		}
		if err != nil {
			err = fmt.Errorf("memory from page %d on: %w", i*branchPages, err)
		}
		if err := c.note(r.Name, err); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(r.FileParts) {
		parts := r.FileParts[name]
		for i := range parts.Parts {
			if _, err := r.part(c.packs, parts, i); err != nil {
				if err := c.note(r.Name, fmt.Errorf("file %s: %w", name, err)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// branch checks a branch and its leaves: that they can be read, and that the pages are there. It
// gives the first thing that is wrong.
func (c *checker) branch(r *root, ref uint64) error {
	var b branch
	if err := readBranch(c.packs, ref, &b); err != nil {
		return err
	}
	var first error
	for i, ch := range &b {
		if ch.zero() {
			continue
		}
		err, known := c.seen[ch.ref]
		if ch.ref == 0 || !known {
			err = c.leaf(r, ch)
			if ch.ref != 0 {
				c.seen[ch.ref] = err
			}
		}
		if err != nil && !isCorrupt(err) {
			return err
		}
		if err != nil && first == nil {
			first = fmt.Errorf("leaf %d: %w", i, err)
		}
	}
	return first
}

func (c *checker) leaf(r *root, ch child) error {
	var refs leaf
	if _, err := readLeaf(c.packs, ch, &refs); err != nil {
		return err
	}
	for i, ref := range refs {
		if ref == 0 {
			continue
		}
		if !r.top.refersTo(ref >> 24) {
			return &CorruptError{Pack: rootName(r.Name, r.Generation),
				What: fmt.Sprintf("list of packs: %d is missing", ref>>24)}
		}
		p, err := c.packs.get(ref >> 24)
		if err != nil {
			return err
		}
		if slot := pack.Ref(ref).Slot(); p.Dead(slot) {
			return &CorruptError{Pack: p.Name(), What: fmt.Sprintf("slot %d", slot),
				Err: fmt.Errorf("page %d of a leaf needs it, and it is not there", i)}
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
	if err != nil {
		return c.note("", err)
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
		err := p.Verify(ctx, c.s.key,
			func(err error) { c.problem("", p.Name(), "%v", err) },
			func(done int64) { m.add(base + min(done, info.bytes) - m.p.Done) })
		if err != nil {
			return err
		}
		c.report.PagesRead += live
	}
	hashes, err := p.Hashes()
	if err != nil {
		if c.o.ReadData {
			return nil // said already
		}
		return c.note("", err)
	}
	return c.known(ctx, p, hashes)
}

// known checks that the index knows the pages of a pack. What it does not know it is told: that costs
// space until then, and is no damage.
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

func (c *checker) indexKeys(ctx context.Context) error {
	if c.s.readOnly {
		return nil
	}
	if err := c.s.hints.missing(ctx); err != nil {
		c.report.NoIndex = err.Error()
		return nil
	}
	return c.s.hints.do(ctx, func(k keyStore) error {
		c.report.IndexKeys = 0
		return scanAll(ctx, k, rowPage, func(row) error {
			c.report.IndexKeys++
			return nil
		})
	})
}
