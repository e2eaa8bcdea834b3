package index

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/thawfs/thaw/index/pack"
)

// LivenessError says that a collection was about to delete something that a checkpoint needs, and that
// the audit noticed it. Nothing was deleted.
type LivenessError struct {
	Checkpoint string
	Pack       string // blob name of the pack that would have lost it
	What       string // "slot 17 (page 5)", "record 3", "frames", "all of it"
}

func (e *LivenessError) Error() string {
	return fmt.Sprintf("checkpoint %s needs %s of %s, which was taken for dead: nothing was deleted; "+
		"leave the store as it is, look at it with \"thaw check --read-data\" and report this",
		e.Checkpoint, e.What, e.Pack)
}

// errRootCame ends a collection that meets a root which it did not know.
var errRootCame = fmt.Errorf("%w, nothing was deleted: run it again", ErrChanged)

// audit checks a second time what a collection is about to delete. For every root that lists a pack
// which will be deleted or rewritten, it looks up every page, node and part of a file, one after
// another, as a reader of the image would. It shares nothing with the walk that found the live pages
// except the list of packs: roots are listed and read again, what was seen in one root is not taken
// as seen in another, and page maps are read by the code that serves images.
//
// A root refers to no pack that it does not list (reading its page map would fail), so the others
// need not be looked at. That is what keeps the second look cheap: 3 % of a collection that wrote 16
// packs again for 14 checkpoints, and 31 % of one that wrote 3 packs again, all of which were listed
// by 90 checkpoints. Roots share files that are open and their directories, which a read verifies.
func (c *collector) audit(ctx context.Context, remove []uint64, rewrite []victim) error {
	roots, err := c.rootsToAudit(ctx)
	if err != nil {
		return err
	}
	a := &auditor{c: c, doomed: map[uint64]*livePack{}}
	for _, number := range remove {
		a.doomed[number] = nil
	}
	for _, v := range rewrite {
		if a.doomed[v.number] = c.live.packs[v.number]; a.doomed[v.number] == nil {
			a.doomed[v.number] = &livePack{}
		}
	}
	if err := a.all(ctx, roots); err != nil {
		return err
	}
	return c.sameRoots(ctx, roots)
}

// all looks at roots, some at a time. Packs that one of them has open stay open for the next, which as a
// rule lists most of them, too: to open one for each root would take longer than all else.
func (a *auditor) all(ctx context.Context, roots []*catalogEntry) error {
	m := newMeter(a.c.o.Progress, "look again", "checkpoints", int64(len(roots)))
	var mu sync.Mutex // of m and next
	next := 0
	take := func() *catalogEntry {
		mu.Lock()
		defer mu.Unlock()
		if next == len(roots) {
			return nil
		}
		next++
		return roots[next-1]
	}
	workers := runtime.GOMAXPROCS(0)
	g, gctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error {
			packs := newSomePacks(gctx, a.c.s.packs, workers)
			defer packs.release()
			for e := take(); e != nil && gctx.Err() == nil; e = take() {
				if err := a.checkpoint(gctx, packs, e); err != nil {
					return err
				}
				mu.Lock()
				m.add(1)
				mu.Unlock()
			}
			return gctx.Err()
		})
	}
	return g.Wait()
}

// rootsToAudit lists the present roots. A root that the first walk did not have ends the audit.
func (c *collector) rootsToAudit(ctx context.Context) ([]*catalogEntry, error) {
	known := map[string]*catalogEntry{}
	for _, e := range c.entries {
		known[e.Name] = e
	}
	list, err := c.s.blobs.List(ctx, rootsDirName+"/")
	if err != nil {
		return nil, err
	}
	var roots []*catalogEntry
	for _, b := range list {
		name, generation, ok := parseRootName(b.Name)
		if !ok {
			continue
		}
		e := known[name]
		switch {
		case e == nil:
			return nil, fmt.Errorf("%s: %w", b.Name, errRootCame)
		case generation == e.Generation:
			roots = append(roots, e)
		case generation > e.Generation:
			// Opening the store prefers the newest that can be read.
			if _, err := c.s.readRoot(ctx, name, generation); !isCorrupt(err) {
				return nil, errors.Join(fmt.Errorf("%s: %w", b.Name, errRootCame), err)
			}
		}
	}
	return roots, nil
}

// sameRoots says whether there are no other roots than those that were audited.
func (c *collector) sameRoots(ctx context.Context, audited []*catalogEntry) error {
	now, err := c.rootsToAudit(ctx)
	if err != nil {
		return err
	}
	was := map[*catalogEntry]bool{}
	for _, e := range audited {
		was[e] = true
	}
	for _, e := range now {
		if !was[e] {
			return fmt.Errorf("checkpoint %s: %w", e.Name, errRootCame)
		}
	}
	return nil
}

// auditor is one audit. Its fields do not change: many goroutines look at roots at once.
type auditor struct {
	c *collector
	// doomed holds what must be kept of each pack that will be rewritten; nil for one that will be
	// deleted.
	doomed map[uint64]*livePack
}

// checkpoint looks up everything that one checkpoint refers to.
func (a *auditor) checkpoint(ctx context.Context, packs *lazyPacks, e *catalogEntry) error {
	r, err := a.c.s.readRoot(ctx, e.Name, e.Generation)
	if err == nil {
		err = a.root(ctx, packs, r)
	}
	if err != nil && a.c.s.gone(e) {
		return nil // it was removed meanwhile: what it needs may go, or stay
	}
	var found *LivenessError
	if err != nil && !errors.As(err, &found) {
		return fmt.Errorf("checkpoint %s: %w", e.Name, err)
	}
	return err
}

func (a *auditor) root(ctx context.Context, packs *lazyPacks, r *root) error {
	if err := a.c.s.packs.noneForeign(ctx, r.top); err != nil {
		return err
	}
	concerned := false
	for _, number := range r.top.packs {
		kept, doomed := a.doomed[number]
		if doomed && kept == nil {
			return a.found(r, number, "all of it")
		}
		concerned = concerned || doomed
	}
	if !concerned {
		return nil
	}
	if kept, doomed := a.doomed[r.top.segment]; doomed && !kept.segment {
		return a.found(r, r.top.segment, "frames")
	}
	for _, parts := range r.FileParts {
		for _, ref := range parts.Parts {
			if err := a.record(r, ref); err != nil {
				return err
			}
		}
	}
	packs.of(r)
	w := &witness{nodes: packs, seen: func(ref uint64) error { return a.record(r, ref) }}
	return eachPlaced(ctx, w, r.top, nil, func(gfn, ref uint64) error { return a.page(r, gfn, ref) })
}

// page looks up a page.
func (a *auditor) page(r *root, gfn, ref uint64) error {
	slot := pack.Ref(ref).Slot()
	if kept, doomed := a.doomed[ref>>24]; doomed && !kept.hasSlot(slot) {
		return a.found(r, ref>>24, fmt.Sprintf("slot %d (page %d)", slot, gfn))
	}
	return nil
}

// record looks up a node or a part of a file.
func (a *auditor) record(r *root, ref uint64) error {
	if kept, doomed := a.doomed[ref>>24]; doomed && !kept.hasRecord(int(pack.Ref(ref).Slot())) {
		return a.found(r, ref>>24, fmt.Sprintf("record %d", pack.Ref(ref).Slot()))
	}
	return nil
}

func (a *auditor) found(r *root, number uint64, what string) error {
	info, _ := a.c.s.packs.info(number)
	return &LivenessError{
		Checkpoint: r.Name, Pack: pack.Name(number, info.generation), What: what,
	}
}

// witness reads nodes, and reports each node that it reads.
type witness struct {
	nodes nodes
	seen  func(ref uint64) error
}

func (w *witness) node(ref uint64, kind uint32) ([]byte, error) {
	if err := w.seen(ref); err != nil {
		return nil, err
	}
	return w.nodes.node(ref, kind)
}
