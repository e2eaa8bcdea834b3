package index

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/thawfs/thaw/index/pack"
)

// ImportOptions is how to import.
type ImportOptions struct {
	// Name of the checkpoint; it must be free, but with Replace.
	Name string
	// Replace takes the name over: the checkpoint that has it is there until the new one is whole, and gone
	// then. ErrInUse while an image or a file of it is open in this process.
	Replace bool
	// Profile to store new pages with.
	Profile Profile
	// WorkingSet is the pages of the working set in first-touch order; they are copied into a
	// segment.
	WorkingSet []Run
	// Wanted says when the pages of the working set are wanted; nil: that is not known.
	Wanted Wanted
	// Order is how new pages are laid out: group after group, the pages of each in its order, then
	// the pages of no group by guest frame number. A page belongs to the first group that names it.
	// Nil: WorkingSet is the one group.
	Order []Group
	// Progress is called now and then, by one goroutine at a time. May be nil.
	Progress func(Progress)
}

// ImportStats is what an import did.
type ImportStats struct {
	MemoryBytes  int64   `json:"memory_bytes"`
	ReadBytes    int64   `json:"read_bytes"` // without the holes
	ZeroPages    uint64  `json:"zero_pages"`
	DupPages     uint64  `json:"duplicate_pages"` // stored already, by this import or an older one
	NewPages     uint64  `json:"new_pages"`
	NewLeaves    int     `json:"new_leaves"`
	SharedLeaves int     `json:"shared_leaves"`
	StoredBytes  int64   `json:"stored_bytes"` // packs and root, without the segment
	SegmentBytes int64   `json:"segment_bytes"`
	Seconds      float64 `json:"seconds"`
}

// Import stores a checkpoint. It is there whole, or not at all.
//
// Pages are read and hashed in parallel, looked up in their order (the groups of o.Order, then by
// guest frame number), compressed in parallel, and appended to packs in their order. Behind the
// pages come the nodes of the page map, the files, and the segment. The root is written last.
func (s *Store) Import(ctx context.Context, src Source, o ImportOptions) (
	Checkpoint, ImportStats, error,
) {
	c, st, err := s.importSource(ctx, src, o)
	if err != nil {
		return Checkpoint{}, ImportStats{}, fmt.Errorf("import %s: %w", o.Name, err)
	}
	return c, st, nil
}

func (s *Store) importSource(ctx context.Context, src Source, o ImportOptions) (
	c Checkpoint, st ImportStats, err error,
) {
	start := time.Now()
	if err := CheckName(o.Name); err != nil {
		return c, st, err
	}
	done, err := s.write(ctx)
	if err != nil {
		return c, st, err
	}
	defer done()
	if err := s.nameFree(o); err != nil {
		return c, st, err
	}
	if err := s.hints.refresh(ctx, o.Progress); err != nil {
		return c, st, err
	}
	im, err := newImporter(ctx, s, src, o)
	if err != nil {
		return c, st, err
	}
	defer im.close()
	e, err := im.run(ctx)
	if err != nil {
		if !errors.Is(err, errUnsure) {
			im.undo()
		}
		return c, st, err
	}
	st = im.stats
	st.StoredBytes = e.StoredBytes
	st.Seconds = time.Since(start).Seconds()
	return e.Checkpoint, st, nil
}

// nameFree says why an import cannot have its name.
func (s *Store) nameFree(o ImportOptions) error {
	s.cat.mu.Lock()
	defer s.cat.mu.Unlock()
	switch old := s.cat.m[o.Name]; {
	case old == nil:
		return nil
	case !o.Replace:
		return ErrExists
	default:
		return old.removableLocked()
	}
}

// importer is one import.
type importer struct {
	s         *Store
	o         ImportOptions
	src       Source
	mem       *sourceMemory
	extents   []Run
	set       []Run
	order     []Group
	grouped   gfnSet       // the pages of order
	refs      refTable     // where they are stored
	pool      sync.Pool    // of *chunk
	parent    *parentImage // nil: none
	dedup     *dedup
	found     [chunkPages]uint64 // where the pages of the present chunk are stored already
	ids       map[uint64]uint64  // of packs that checkpoints list, when it began
	tree      *treeWriter
	packer    *packer
	leafNo    uint64 // the leaf that is being filled
	leaf      leaf
	dataPages uint64
	added     []uint64 // packs that were made known to the store

	stats    ImportStats
	progress *meter
}

func newImporter(ctx context.Context, s *Store, src Source, o ImportOptions) (*importer, error) {
	im := &importer{s: s, o: o, src: src, refs: refTable{}}
	var err error
	if im.mem, err = src.openMemory(); err != nil {
		return nil, err
	}
	if err := im.prepare(ctx); err != nil {
		im.close()
		return nil, err
	}
	return im, nil
}

// prepare finds out what there is to read, and what to share it with.
func (im *importer) prepare(ctx context.Context) (err error) {
	s := im.s
	if im.src.Stream != nil {
		return im.prepareStream(ctx)
	}
	if im.extents, err = im.mem.extents(); err != nil {
		return err
	}
	if im.set, err = cleanRuns(im.o.WorkingSet, im.mem.pages); err != nil {
		return err
	}
	order := im.o.Order
	if order == nil && len(im.set) > 0 {
		order = []Group{{Kind: GroupUsed, Runs: im.set}}
	}
	if im.order, err = cleanGroups(order, im.mem.pages, &im.grouped); err != nil {
		return err
	}
	im.stats.MemoryBytes = int64(im.mem.pages) * PageSize
	im.stats.ReadBytes = int64(countPages(im.extents)) * PageSize
	im.progress = newMeter(im.o.Progress, "import", "bytes", im.stats.ReadBytes)

	hashes, err := im.prepareDedup(ctx)
	if err != nil {
		return err
	}
	if im.parent, err = s.findParent(ctx, im, hashes); err != nil {
		return err
	}
	var tree *parentTree
	if im.parent != nil {
		im.dedup.parent = im.parent.pages
		tree = im.parent.tree
	}
	im.tree = newTreeWriter(im.mem.pages, pack.NewHasher(s.key), im.findNode(ctx), tree)
	return nil
}

// prepareDedup makes what finds pages that are stored already.
func (im *importer) prepareDedup(ctx context.Context) (hashes *hashCache, err error) {
	s := im.s
	im.ids = s.cat.ids()
	hashes = newHashCache(ctx, s.packs, im.ids, s.log)
	im.dedup = &dedup{hashes: hashes, fresh: map[pack.Hash]uint64{}, hints: s.hints}
	im.dedup.ask, err = s.hints.some(ctx)
	return hashes, err
}

func (im *importer) close() {
	im.mem.close()
	if im.dedup != nil {
		im.dedup.hashes.release()
	}
	if im.parent != nil {
		im.parent.close()
	}
}

// run does the whole import. After an error undo removes what it left.
func (im *importer) run(ctx context.Context) (*catalogEntry, error) {
	g := newTasks(ctx)
	defer g.wait()
	defer g.cancel(nil) // what still runs is not needed any more
	e, err := im.steps(ctx, g)
	if first := g.err(); err != nil && first != nil {
		err = first // the cause of err
	}
	return e, err
}

// steps does the import; goroutines that it starts run in g.
func (im *importer) steps(ctx context.Context, g *tasks) (_ *catalogEntry, err error) {
	if im.packer, err = newPacker(im.s, g, im.o.Profile); err != nil {
		return nil, err
	}
	pages := im.pages
	if im.src.Stream != nil {
		pages = im.streamPages
	}
	if err := pages(g); err != nil {
		return nil, err
	}
	if err := im.packer.end(); err != nil {
		return nil, err
	}
	r := &root{records: map[int][]byte{}, top: &mapTop{pages: im.mem.pages}}
	branches, err := im.tree.finish(im.packer.record)
	if err != nil {
		return nil, err
	}
	r.top.branches = branches
	fw := &fileWriter{root: r, record: im.packer.record, hasher: im.tree.hasher}
	if err := fw.source(im.src); err != nil {
		return nil, err
	}
	if err := errors.Join(im.packer.finish(), im.packer.finished()); err != nil {
		return nil, err
	}
	im.added = append(im.added, im.packer.written...)
	r.StoredBytes = im.packer.bytes
	if err := im.segment(ctx, r); err != nil {
		return nil, err
	}
	im.fillRoot(r, fw)
	if r.top.ids, err = im.s.packs.ids(ctx, r.top.packs); err != nil {
		return nil, err
	}
	if err := im.s.nameFree(im.o); err != nil { // it may be open by now
		return nil, err
	}
	return im.s.commit(ctx, r, im.s.entry(r.Name))
}

// segment stores the working set's second copy.
func (im *importer) segment(ctx context.Context, r *root) error {
	if len(im.set) == 0 {
		return nil
	}
	r.setRuns = im.set
	r.dues = duesOf(im.set, segmentPages(im.set, im.mem.pages), im.o.Wanted)
	pages, err := im.pageMap(ctx, r.top)
	if err != nil {
		return err
	}
	read, done := im.s.proved(ctx, im.o.Name, pages, im.mem.read)
	defer done()
	seg, err := im.s.writeSegment(ctx, im.set, im.mem.pages, im.o.Profile, read, im.o.Progress)
	if errors.Is(err, pack.ErrHash) {
		return &ImageError{Path: im.src.Memory, Why: "it changed while it was imported", Err: err}
	}
	if err != nil {
		return err
	}
	im.added = append(im.added, seg.number)
	im.stats.SegmentBytes = seg.bytes
	seg.into(r)
	return nil
}

// pageMap reads the new page map back.
func (im *importer) pageMap(ctx context.Context, top *mapTop) (*pageMap, error) {
	packs := sortedKeys(im.tree.packs)
	pins, err := im.s.packs.pinReadable(ctx, packs, nil, false)
	if err != nil {
		return nil, err
	}
	defer pins.release()
	return loadPageMap(ctx, newPinnedNodes(packs, pins), top, packs, nil)
}

// fillRoot fills the root with what was imported.
func (im *importer) fillRoot(r *root, fw *fileWriter) {
	packs := maps.Clone(im.tree.packs)
	for n := range fw.packs {
		packs[n] = true
	}
	if r.top.segment != 0 {
		packs[r.top.segment] = true
	}
	r.top.packs = sortedKeys(packs)
	c := &r.Checkpoint
	c.Format, c.Name = Format, im.o.Name
	c.Created = time.Now().UTC()
	c.MemoryBytes = im.stats.MemoryBytes
	im.stats.ZeroPages = im.mem.pages - im.dataPages
	c.DataPages, c.ZeroPages, c.NewPages = im.dataPages, im.stats.ZeroPages, im.stats.NewPages
	c.Layout = layoutOf(im.order)
	if im.o.Profile != ProfileDefault {
		c.Profile = im.o.Profile.String()
	}
	if im.parent != nil && im.parent.name != im.o.Name { // else it is the one that this replaces
		c.Parent = im.parent.name
	}
	c.Guest = im.src.Info
	c.ID = r.id(im.tree.hasher)
	im.stats.NewLeaves, im.stats.SharedLeaves = im.tree.newLeaves, im.tree.sharedLeaves
}

// id names the content of the checkpoint: its name, its memory as the page map has it, and its
// files other than the working set. The time is part of it, so that other
// content never gets the same id.
func (r *root) id(h *pack.Hasher) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n%d\n%x\n", r.Name, r.Created.Format(time.RFC3339Nano), r.top.pages,
		appendRefs(nil, r.top.branches))
	for _, name := range sortedKeys(r.FileParts) {
		if name != fileWorkingSet {
			fmt.Fprintf(&b, "%s %d %s\n", name, r.FileParts[name].Size, r.FileParts[name].Sum)
		}
	}
	sum := h.Sum([]byte(b.String()))
	return hex.EncodeToString(sum[:])
}
