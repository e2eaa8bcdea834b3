package index

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/thawfs/thaw/index/pack"
)

// pageMap is the page map of an image in RAM: the place of each page that is not zero. It takes
// eight bytes for such a page, 96 for a leaf that has any, and nothing for what is zero, so that a
// sparse image of any size costs what it holds. It never changes once it is made.
//
// A place is the position of the pack in packs<<24 | slot: the position finds an open pack by one
// index, where the pack's number would need a search.
type pageMap struct {
	pages    uint64
	packs    []uint64     // numbers, ascending
	branches []*branchMap // by 1 GiB of guest memory; nil: all zero
	data     uint64       // pages that are not zero
	before   []uint64     // those before each branch
}

type branchMap struct {
	index  [branchLeaves]uint16 // position in leaves + 1; 0: all zero
	leaves []leafMap
	places []uint64 // of the pages that are not zero, by gfn
}

// leafMap finds a page's position among the branch's places: those before its 64-page word, plus
// those before it in the word.
type leafMap struct {
	bits   [8]uint64 // set: not zero
	before [8]uint32
}

// place returns where a page lies; false for a zero page and beyond the end.
func (m *pageMap) place(gfn uint64) (uint64, bool) {
	if gfn >= m.pages {
		return 0, false
	}
	b := m.branches[gfn/branchPages]
	if b == nil {
		return 0, false
	}
	i := b.index[gfn/LeafPages%branchLeaves]
	if i == 0 {
		return 0, false
	}
	l := &b.leaves[i-1]
	word, bit := gfn/64%8, gfn%64
	if l.bits[word]>>bit&1 == 0 {
		return 0, false
	}
	n := bits.OnesCount64(l.bits[word] & (1<<bit - 1))
	return b.places[int(l.before[word])+n], true
}

// ref returns a page's ref as it is stored; 0 for a zero page.
func (m *pageMap) ref(gfn uint64) uint64 {
	p, ok := m.place(gfn)
	if !ok {
		return 0
	}
	return m.packs[p>>24]<<24 | p&(pack.MaxSlots-1)
}

// each calls fn for the pages from first on, below end, that are not zero, ascending.
func (m *pageMap) each(fn func(gfn, place uint64)) {
	for i, b := range m.branches {
		if b == nil {
			continue
		}
		for j, pos := range b.index {
			if pos == 0 {
				continue
			}
			base := uint64(i)*branchPages + uint64(j)*LeafPages
			l := &b.leaves[pos-1]
			at := l.before[0]
			for w, word := range l.bits {
				for ; word != 0; word &= word - 1 {
					fn(base+uint64(w)*64+uint64(bits.TrailingZeros64(word)), b.places[at])
					at++
				}
			}
		}
	}
}

// zeroRuns calls fn for each maximal run of zero pages until it returns false.
func (m *pageMap) zeroRuns(fn func(first, count uint64) bool) {
	var start uint64 // of the run that may be going on at gfn
	var gfn uint64
	flush := func(end uint64) bool { return end == start || fn(start, end-start) }
	for gfn < m.pages {
		b := m.branches[gfn/branchPages]
		if b == nil {
			gfn = min((gfn/branchPages+1)*branchPages, m.pages)
			continue
		}
		pos := b.index[gfn/LeafPages%branchLeaves]
		if pos == 0 {
			gfn = min((gfn/LeafPages+1)*LeafPages, m.pages)
			continue
		}
		word := b.leaves[pos-1].bits[gfn/64%8] >> (gfn % 64)
		left := 64 - gfn%64
		if word == 0 {
			gfn = min(gfn+left, m.pages)
			continue
		}
		gfn += uint64(bits.TrailingZeros64(word))
		if !flush(min(gfn, m.pages)) {
			return
		}
		word = ^(b.leaves[pos-1].bits[gfn/64%8] >> (gfn % 64))
		gfn += min(uint64(bits.TrailingZeros64(word)), 64-gfn%64)
		start = gfn
	}
	flush(m.pages)
}

// loadPageMap reads a page map whole. packs are the numbers of the packs that it may refer to,
// ascending; a page elsewhere is corruption. Where lost is not nil, parts of the map that are damaged
// are noted in it, and their pages are like zeros in the map; otherwise they are an error.
func loadPageMap(ctx context.Context, n nodes, top *mapTop, packs []uint64, lost *lostPages) (
	*pageMap, error,
) {
	m := &pageMap{pages: top.pages, packs: packs, branches: make([]*branchMap, len(top.branches))}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, ref := range top.branches {
		if ref == 0 {
			continue
		}
		g.Go(func() (err error) {
			ld := branchLoader{nodes: n, packs: packs, lost: lost}
			m.branches[i], err = ld.number(gctx, top, i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("read page map: %w", err)
	}
	m.before = make([]uint64, len(m.branches))
	for i, b := range m.branches {
		m.before[i] = m.data
		if b != nil {
			m.data += uint64(len(b.places))
		}
	}
	return m, nil
}

// branchLoader reads branches, one after another.
type branchLoader struct {
	nodes  nodes
	packs  []uint64
	lost   *lostPages // nil: damage is an error
	first  uint64     // page of the branch
	branch branch
	leaf   leaf
	pack   uint64 // the one seen last, and its position
	pos    uint64
}

// number reads branch i of a map: nil if it is all zero, or lost.
func (ld *branchLoader) number(ctx context.Context, top *mapTop, i int) (*branchMap, error) {
	if top.branches[i] == 0 || ctx.Err() != nil {
		return nil, ctx.Err()
	}
	ld.first = uint64(i) * branchPages
	left := top.pages - ld.first
	b, err := ld.load(top.branches[i], left)
	if err != nil && ld.lost.add(ld.first, min(left, branchPages), err) {
		return nil, nil
	}
	return b, err
}

// load reads the branch at ref, of which the image has so many pages at most.
func (ld *branchLoader) load(ref, pages uint64) (*branchMap, error) {
	if err := readBranch(ld.nodes, ref, &ld.branch); err != nil {
		return nil, err
	}
	used := 0
	for _, c := range &ld.branch {
		if !c.zero() {
			used++
		}
	}
	b := &branchMap{leaves: make([]leafMap, 0, used)}
	for i, c := range &ld.branch {
		if c.zero() {
			continue
		}
		if uint64(i)*LeafPages >= pages {
			return nil, ld.corrupt(ref, "leaf beyond the end")
		}
		before, n := len(b.places), min(pages-uint64(i)*LeafPages, LeafPages)
		if err := ld.child(b, i, c, ref, n); err != nil {
			if !ld.lost.add(ld.first+uint64(i)*LeafPages, n, err) {
				return nil, err
			}
			b.places = b.places[:before]
		}
	}
	b.places = slices.Clip(b.places)
	return b, nil
}

// child reads leaf i of a branch, of which the image has so many pages. Most leaves are full, and a
// few runs: these are taken as they are coded. A difference is worked out first.
func (ld *branchLoader) child(b *branchMap, i int, c child, ref, pages uint64) error {
	code, err := c.code(ld.nodes)
	if err != nil {
		return err
	}
	l := leafMap{}
	start := len(b.places)
	if len(code) > 0 && code[0] == leafFull {
		err = ld.fullLeaf(b, &l, code[1:])
	} else {
		err = ld.expandedLeaf(b, &l, code)
	}
	if err != nil {
		if isCorrupt(err) || !errors.Is(err, errRefs) && !errors.Is(err, errNode) {
			return err
		}
		return ld.corrupt(ref, fmt.Sprintf("leaf %d: %v", i, err))
	}
	at := uint32(start)
	for w, word := range l.bits {
		l.before[w] = at
		at += uint32(bits.OnesCount64(word))
	}
	if pages < LeafPages && !onlyBelow(&l, pages) {
		return ld.corrupt(ref, "page beyond the end")
	}
	b.leaves = append(b.leaves, l)
	b.index[i] = uint16(len(b.leaves))
	return nil
}

// onlyBelow says whether no bit from n on is set.
func onlyBelow(l *leafMap, n uint64) bool {
	for w, word := range l.bits {
		if lo := uint64(w) * 64; lo+64 > n && word>>(max(n, lo)-lo) != 0 {
			return false
		}
	}
	return true
}

func (ld *branchLoader) fullLeaf(b *branchMap, l *leafMap, code []byte) error {
	s := refScanner{code: code, left: LeafPages}
	for s.left > 0 {
		at := LeafPages - s.left
		n, first, err := s.next()
		if err != nil {
			return err
		}
		if err := ld.run(b, l, at, n, first); err != nil {
			return err
		}
	}
	if len(s.code) != 0 {
		return fmt.Errorf("%w: %d bytes too many", errNode, len(s.code))
	}
	return nil
}

func (ld *branchLoader) expandedLeaf(b *branchMap, l *leafMap, code []byte) error {
	if _, err := decodeLeaf(ld.nodes, code, &ld.leaf); err != nil {
		return err
	}
	for at := 0; at < LeafPages; {
		n := refRun(ld.leaf[at:])
		if err := ld.run(b, l, at, n, ld.leaf[at]); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// run adds n pages from at on: zeros, or those with refs from first on.
func (ld *branchLoader) run(b *branchMap, l *leafMap, at, n int, first uint64) error {
	if first == 0 {
		return nil
	}
	if first>>24 != ld.pack || ld.pack == 0 {
		pos, ok := slices.BinarySearch(ld.packs, first>>24)
		if !ok {
			return fmt.Errorf("%w: page in pack %d, which is not listed", errNode, first>>24)
		}
		ld.pack, ld.pos = first>>24, uint64(pos)
	}
	place := ld.pos<<24 | first&(pack.MaxSlots-1)
	for i := range uint64(n) {
		b.places = append(b.places, place+i)
	}
	for end := at + n; at < end; {
		stop := min(at&^63+64, end)
		l.bits[at/64] |= (^uint64(0) >> (64 - uint(stop-at))) << (at % 64)
		at = stop
	}
	return nil
}

func (ld *branchLoader) corrupt(ref uint64, why string) error {
	return &CorruptError{Pack: pack.Ref(ref).String(), What: "branch: " + why}
}
