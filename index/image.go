package index

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/thawfs/thaw/index/pack"
)

// Image is the memory of a checkpoint, open for reading. Its page map is in RAM, its packs stay
// until Close. All methods but Close may be called by many goroutines at once; Close comes after
// the last of them has come back.
type Image struct {
	s       *Store
	entry   *catalogEntry
	root    *root
	pages   *pageMap
	reverse func() *reverseMap // made when it is first needed; not needed to read single pages
	pins    *pins
	spots   []pack.Spots // by position, as in pages; without any for a pack that could not be opened
	packs   []*packEntry // by position, as in pages; nil for one that could not be opened
	missing []error      // why not
	lost    *lostPages   // of the page map; nil: nothing may be
	closed  atomic.Bool
}

// OpenImage opens the memory of a checkpoint. It reads the page map whole, and the directories of
// the packs; no page. A pack that is missing or damaged is an error of the pages in it, when they are
// read; a page map that cannot be read whole is an error at once. Until Close the checkpoint cannot
// be removed.
func (s *Store) OpenImage(ctx context.Context, name string) (*Image, error) {
	return s.openImage(ctx, Version{Name: name})
}

// OpenImageOf is OpenImage for one version of a checkpoint: ErrChanged, and never other bytes, if the
// name has another ID by now. Memory is the same in all generations of an ID.
func (s *Store) OpenImageOf(ctx context.Context, v Version) (*Image, error) {
	if v.ID == "" {
		return nil, fmt.Errorf("open image %s: no ID was given", v.Name)
	}
	return s.openImage(ctx, v)
}

func (s *Store) openImage(ctx context.Context, v Version) (*Image, error) {
	return s.openDamaged(ctx, v, nil)
}

// openDamaged is openImage. Where lost is not nil, what is damaged of the page map is noted there and
// no error: such an image must not be served, for its lost pages look like zeros.
func (s *Store) openDamaged(ctx context.Context, v Version, lost *lostPages) (*Image, error) {
	var m *Image
	err := s.useSettled(ctx, v, func(e *catalogEntry, r *root, without bool) error {
		m = &Image{s: s, entry: e, root: r, lost: lost}
		return m.open(ctx, without)
	})
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", v.Name, err)
	}
	return m, nil
}

func (m *Image) open(ctx context.Context, without bool) (err error) {
	top := m.root.top
	if m.pins, err = m.s.packs.pinReadable(ctx, top.packs, top.ids, without); err != nil {
		return err
	}
	m.packs, m.missing = m.pins.entries, m.pins.errs
	m.pages, err = loadPageMap(ctx, newPinnedNodes(top.packs, m.pins), top, top.packs, m.lost)
	if err != nil {
		m.pins.release()
		return err
	}
	m.spots = m.allSpots()
	m.reverse = sync.OnceValue(func() *reverseMap { return newReverseMap(m.pages, m.spots) })
	return nil
}

// allSpots says where the pages of each pack lie.
func (m *Image) allSpots() []pack.Spots {
	spots := make([]pack.Spots, len(m.packs))
	for i := range m.packs {
		if p, err := m.acquire(uint64(i)); err == nil {
			spots[i] = p.Spots()
			p.release()
		}
	}
	return spots
}

// spot returns the position of the pack that a page lies in, and where in that; false for a zero page and
// beyond the end.
func (m *Image) spot(gfn uint64) (position uint64, spot uint32, ok bool) {
	place, ok := m.pages.place(gfn)
	if !ok {
		return 0, 0, false
	}
	position = place >> 24
	return position, m.spots[position].Of(uint32(place & (pack.MaxSlots - 1))), true
}

// Close releases the packs. The image must not be used afterwards.
func (m *Image) Close() error {
	if m.closed.Swap(true) {
		return nil
	}
	m.pins.release()
	m.s.unuse(m.entry)
	return nil
}

// Checkpoint is what was opened.
func (m *Image) Checkpoint() Checkpoint { return m.entry.Checkpoint }

// Size of the memory, in bytes.
func (m *Image) Size() int64 { return int64(m.pages.pages) * PageSize }

// Pages of the memory, zero pages included.
func (m *Image) Pages() uint64 { return m.pages.pages }

// Zero says whether a page is all zeros. Pages beyond the end are.
func (m *Image) Zero(gfn uint64) bool {
	_, ok := m.pages.place(gfn)
	return !ok
}

// Layout says in which order the pages were stored.
func (m *Image) Layout() Layout { return m.entry.Layout }

// WorkingSet is the working set in first-touch order; nil without one. It must not be changed.
func (m *Image) WorkingSet() []Run { return m.root.setRuns }

// ZeroRuns calls fn for each maximal run of zero pages, ascending, until fn returns false.
func (m *Image) ZeroRuns(fn func(first, count uint64) bool) { m.pages.zeroRuns(fn) }

var (
	errBeyondEnd = errors.New("beyond the end of the image")
	errNoCluster = errors.New("it lies in no cluster")
)

// acquire returns the open pack at a position of the page map, for one read; the error says why a
// pack could not be opened.
func (m *Image) acquire(position uint64) (*openPack, error) {
	if err := m.missing[position]; err != nil {
		return nil, err
	}
	p := m.packs[position].acquire()
	if p == nil {
		return nil, ErrClosed
	}
	return p, nil
}

// unreadable says whether a pack that the page map lists could not be opened.
func (m *Image) unreadable(number uint64) bool {
	position, ok := searchUint64(m.root.top.packs, number)
	return ok && m.missing[position] != nil
}

// ReadPage reads one page into dst (4096 bytes). It allocates nothing and verifies what it decodes.
// On a high-latency medium it reads the page's whole block or cluster, which stays in memory for a while.
// The error is a *CorruptError or that of the blob; dst is undefined then.
func (m *Image) ReadPage(gfn uint64, dst []byte) error {
	place, ok := m.pages.place(gfn)
	if !ok {
		if gfn >= m.pages.pages {
			return m.pageError(gfn, errBeyondEnd)
		}
		clear(dst[:PageSize])
		return nil
	}
	p, err := m.acquire(place >> 24)
	if err != nil {
		return m.pageError(gfn, err)
	}
	slot := uint32(place & (pack.MaxSlots - 1))
	if m.s.blocks != nil {
		err = m.s.blocks.readPage(p.Reader, slot, dst)
	} else {
		err = p.ReadPage(slot, dst)
	}
	p.release()
	if err != nil {
		return m.pageError(gfn, err)
	}
	return nil
}

func (m *Image) pageError(gfn uint64, err error) error {
	return fmt.Errorf("%s: page %d: %w", m.entry.Name, gfn, err)
}
