package fs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/thawfs/thaw/index"
)

// A spec describes a checkpoint of a fake store; client processes know from it what every page must
// hold.
type spec struct {
	Name     string
	ID       string
	Revision uint32
	Pages    uint64
	Seed     uint64
	// ZeroEvery makes each so-many-th page a zero page; 0: none.
	ZeroEvery uint64
	// WS is the working set, runs of (gfn, count).
	WS [][2]uint64
	// Trace: 16 pages Pages/16 apart from each other lie in one locality block.
	LocalBlocks bool
	// Clusters makes pages cold, all of half of the locality blocks, which are clusters then.
	Clusters bool
	// Soft pages compress, and some are like one another: neighbours, or, if Apart, those Pages/16 apart.
	Soft, Apart bool
	// InRAM: pages lie in RAM as they are, for measurements.
	InRAM bool
	Files map[string]string
	// Dues are the times that the store knows of the pieces of WS; nil: it was not told, empty: it knows
	// that there are none.
	Dues []index.Due
	// Own are the names that only this checkpoint has. Clients do not know them.
	Own Names `json:"-"`
}

func (c *spec) zero(gfn uint64) bool { return c.ZeroEvery != 0 && gfn%c.ZeroEvery == 0 }

// dataPages is how many pages are not zero.
func (c *spec) dataPages() uint64 {
	if c.ZeroEvery == 0 {
		return c.Pages
	}
	return c.Pages - (c.Pages+c.ZeroEvery-1)/c.ZeroEvery
}

// fillPage is what a page of the image holds.
func (c *spec) fillPage(gfn uint64, dst []byte) {
	if c.zero(gfn) {
		clear(dst)
		return
	}
	for i := 0; i < PageSize; i += 8 {
		x := (gfn<<9 + uint64(i)/8 + 1) * 0x9e3779b97f4a7c15
		if c.Soft && i >= PageSize/4 {
			like := gfn % 5
			if c.Apart {
				like = gfn % (c.Pages / 16)
			}
			x = (like*512 + uint64(i)/8) / 7 * 0x9e3779b97f4a7c15
		}
		binary.LittleEndian.PutUint64(dst[i:], x^x>>29^c.Seed)
	}
}

// check compares a page with what it must hold.
func (c *spec) check(gfn uint64, got []byte) error {
	want := make([]byte, PageSize)
	c.fillPage(gfn, want)
	if !bytes.Equal(want, got) {
		return fmt.Errorf("page %d: wrong bytes: %x…, want %x…", gfn, got[:16], want[:16])
	}
	return nil
}

var errFake = errors.New("injected failure")

// A fakeStore keeps checkpoints in RAM, with hooks to slow down and break them.
type fakeStore struct {
	mu     sync.Mutex
	specs  []spec
	images map[string][]*fakeImage // every image that was opened, by name

	// Hooks, set before the mount. onRead is called for every page that a READ asks for, before it
	// is answered; onFeed for every piece of a feed.
	onRead    func(gfn uint64) error
	onFeed    func(piece int) error
	onOpen    func(name string) error
	onFile    func()
	bad       map[uint64]bool // pages that cannot be read
	piece     int             // pages of a piece of a feed; 0: fakePiece
	fileError error

	clusters  atomic.Int64 // how many were decoded
	filePanic atomic.Bool
}

func newFakeStore(specs ...spec) *fakeStore {
	for i := range specs {
		if specs[i].ID == "" {
			specs[i].ID = fmt.Sprintf("id-of-%s-%d", specs[i].Name, specs[i].Seed)
		}
	}
	return &fakeStore{specs: specs, images: make(map[string][]*fakeImage)}
}

func (s *fakeStore) List(context.Context) ([]Checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Checkpoint
	for _, c := range s.specs {
		files := map[string]int64{}
		for name, text := range c.Files {
			files[name] = int64(len(text))
		}
		list = append(list, Checkpoint{
			Name: c.Name, ID: c.ID, Revision: c.Revision, MemoryBytes: int64(c.Pages * PageSize),
			DataPages: c.dataPages(), Names: c.Own,
			Created: time.Unix(1700000000, 0), Files: files, WorkingSet: len(c.WS) > 0,
			Info: fmt.Appendf(nil, "{\"name\":%q,\"revision\":%d}\n", c.Name, c.Revision),
		})
	}
	return list, nil
}

// set replaces the checkpoints; Refresh must follow.
func (s *fakeStore) set(specs ...spec) {
	n := newFakeStore(specs...)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.specs = n.specs
}

func (s *fakeStore) find(c Checkpoint) (spec, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.specs {
		if x.Name == c.Name && x.ID == c.ID {
			return x, nil
		}
	}
	return spec{}, ErrNotFound
}

func (s *fakeStore) OpenImage(_ context.Context, c Checkpoint) (Image, error) {
	if s.onOpen != nil {
		if err := s.onOpen(c.Name); err != nil {
			return nil, err
		}
	}
	x, err := s.find(c)
	if err != nil {
		return nil, err
	}
	m := &fakeImage{spec: x, store: s}
	if x.InRAM {
		m.ram = make([]byte, x.Pages*PageSize)
		for gfn := range x.Pages {
			x.fillPage(gfn, m.ram[gfn*PageSize:][:PageSize])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images[c.Name] = append(s.images[c.Name], m)
	return m, nil
}

// opened are the images of a name that were opened so far, and how many of them are still open.
func (s *fakeStore) opened(name string) (all, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.images[name] {
		if !m.closed.Load() {
			open++
		}
	}
	return len(s.images[name]), open
}

type fakeFile struct{ *bytes.Reader }

func (fakeFile) Close() error { return nil }

func (s *fakeStore) OpenFile(_ context.Context, c Checkpoint, file string) (File, error) {
	if s.onFile != nil {
		s.onFile()
	}
	if s.filePanic.Load() {
		panic("injected")
	}
	if s.fileError != nil {
		return nil, s.fileError
	}
	x, err := s.find(c)
	if err != nil {
		return nil, err
	}
	if file == "working-set" && x.Revision != c.Revision {
		return nil, ErrNotFound
	}
	text, ok := x.Files[file]
	if !ok {
		return nil, io.ErrUnexpectedEOF
	}
	return fakeFile{bytes.NewReader([]byte(text))}, nil
}

// A timedFeed knows times.
type timedFeed struct {
	Feed
	dues []index.Due
}

func (f timedFeed) Due() ([]index.Due, bool) { return f.dues, f.dues != nil }

// A fakeMemory is an image of a fakeStore.
type fakeImage struct {
	spec
	store  *fakeStore
	ram    []byte
	closed atomic.Bool
}

func (m *fakeImage) Size() int64          { return int64(m.Pages * PageSize) }
func (m *fakeImage) Zero(gfn uint64) bool { return m.zero(gfn) }
func (m *fakeImage) Local() bool          { return m.LocalBlocks }
func (m *fakeImage) WorkingSetFeed() Feed { return timedFeed{m.feed(m.workingSet()), m.Dues} }
func (m *fakeImage) Close() error         { m.closed.Store(true); return nil }
func (m *fakeImage) feed(g []uint64) Feed { return &fakeFeed{m: m, gfns: g} }
func (m *fakeImage) stride() uint64       { return max(m.Pages/16, 1) }

func (m *fakeImage) page(gfn uint64, dst []byte) error {
	if m.closed.Load() {
		panic("read of a closed image")
	}
	if m.store.bad[gfn] {
		copy(dst, "these are bytes of another page")
		return errFake
	}
	if m.ram != nil {
		copy(dst, m.ram[gfn*PageSize:][:PageSize])
		return nil
	}
	m.fillPage(gfn, dst)
	return nil
}

func (m *fakeImage) ReadPage(gfn uint64, dst []byte) error {
	if m.store.onRead != nil {
		if err := m.store.onRead(gfn); err != nil {
			return err
		}
	}
	return m.page(gfn, dst)
}

func (m *fakeImage) ReadRange(first uint64, dst []byte) error {
	if m.ram != nil && m.store.onRead == nil {
		copy(dst, m.ram[first*PageSize:])
		return nil
	}
	for i := 0; i < len(dst); i += PageSize {
		if err := m.ReadPage(first+uint64(i/PageSize), dst[i:i+PageSize]); err != nil {
			return err
		}
	}
	return nil
}

func (m *fakeImage) Neighbours(gfn uint64, dst []uint64) []uint64 {
	for i := gfn % m.stride(); i < m.Pages; i += m.stride() {
		if !m.zero(i) {
			dst = append(dst, i)
		}
	}
	return dst
}

// Cluster: every other block is one.
func (m *fakeImage) Cluster(gfn uint64) (ClusterID, int, bool) {
	id := gfn % m.stride()
	if !m.Clusters || m.zero(gfn) || id%2 > 0 {
		return 0, 0, false
	}
	return ClusterID(id), slices.Index(m.Neighbours(gfn, nil), gfn), true
}

func (m *fakeImage) ReadCluster(gfn uint64, c *Cluster) error {
	if m.store.onRead != nil {
		if err := m.store.onRead(gfn); err != nil {
			return err
		}
	}
	gfns := m.Neighbours(gfn, nil)
	m.store.clusters.Add(1)
	c.Pages = slices.Grow(c.Pages[:0], len(gfns)*PageSize)[:len(gfns)*PageSize]
	for i, gfn := range gfns {
		if err := m.page(gfn, c.Pages[i*PageSize:][:PageSize]); err != nil {
			return err // a cluster is damaged as a whole
		}
	}
	c.ID = ClusterID(gfn % m.stride())
	return nil
}

func (m *fakeImage) ClusterPages(c *Cluster, p *Piece) {
	p.GFNs = m.Neighbours(uint64(c.ID), p.GFNs[:0])
	p.Pages = append(p.Pages[:0], c.Pages...)
}

func (m *fakeImage) ReadNeighbours(gfn uint64, p *Piece) error {
	return m.fill(p, m.Neighbours(gfn, nil))
}

func (m *fakeImage) fill(p *Piece, gfns []uint64) error {
	lost := &PagesError{Name: m.Name, Err: errFake}
	good := slices.DeleteFunc(slices.Clone(gfns), func(gfn uint64) bool {
		if m.store.bad[gfn] {
			lost.GFNs = append(lost.GFNs, gfn)
		}
		return m.store.bad[gfn]
	})
	err := m.fillGood(p, good)
	if err == nil && len(lost.GFNs) > 0 {
		return lost
	}
	return err
}

func (m *fakeImage) fillGood(p *Piece, gfns []uint64) error {
	p.GFNs = append(p.GFNs[:0], gfns...)
	p.Pages = slices.Grow(p.Pages[:0], len(gfns)*PageSize)[:len(gfns)*PageSize]
	for i := 0; i < len(gfns); {
		n := 1
		for i+n < len(gfns) && gfns[i+n] == gfns[i]+uint64(n) {
			n++
		}
		if m.ram != nil {
			copy(p.Pages[i*PageSize:(i+n)*PageSize], m.ram[gfns[i]*PageSize:])
		} else {
			for j := i; j < i+n; j++ {
				if err := m.page(gfns[j], p.Pages[j*PageSize:][:PageSize]); err != nil {
					return err
				}
			}
		}
		i += n
	}
	return nil
}

func (m *fakeImage) workingSet() (gfns []uint64) {
	for _, r := range m.WS {
		for gfn := r[0]; gfn < r[0]+r[1]; gfn++ {
			gfns = append(gfns, gfn)
		}
	}
	return gfns
}

func (m *fakeImage) PagesFeed(runs []Run) Feed {
	var gfns []uint64
	for _, r := range runs {
		for gfn := r.GFN; gfn < r.GFN+r.Count; gfn++ {
			gfns = append(gfns, gfn)
		}
	}
	return m.feed(gfns)
}

func (m *fakeImage) EagerFeed() Feed {
	var gfns []uint64
	for gfn := range m.Pages {
		if !m.zero(gfn) {
			gfns = append(gfns, gfn)
		}
	}
	return m.feed(gfns)
}

func (m *fakeImage) NextData(gfn uint64) uint64 {
	for gfn < m.Pages && m.zero(gfn) {
		gfn++
	}
	return min(gfn, m.Pages)
}

func (m *fakeImage) NextZero(gfn uint64) uint64 {
	for gfn < m.Pages && !m.zero(gfn) {
		gfn++
	}
	return min(gfn, m.Pages)
}

func (m *fakeImage) DataBefore(gfn uint64) (n uint64) {
	for i := range min(gfn, m.Pages) {
		if !m.zero(i) {
			n++
		}
	}
	return n
}

func (m *fakeImage) ZeroRuns(fn func(first, count uint64) bool) {
	if m.ZeroEvery == 0 {
		return
	}
	for gfn := uint64(0); gfn < m.Pages; gfn += m.ZeroEvery {
		if !fn(gfn, 1) {
			return
		}
	}
}

// fakePiece is the number of pages of a piece, where the store says nothing else.
const fakePiece = 256

type fakeFeed struct {
	m    *fakeImage
	gfns []uint64
}

func (f *fakeFeed) piece() int { return cmp.Or(f.m.store.piece, fakePiece) }

func (f *fakeFeed) Len() int { return (len(f.gfns) + f.piece() - 1) / f.piece() }

func (f *fakeFeed) GFNs(i int, dst []uint64) []uint64 {
	return append(dst, f.gfns[i*f.piece():min((i+1)*f.piece(), len(f.gfns))]...)
}

func (f *fakeFeed) Parallel() int         { return 1 }
func (f *fakeFeed) Decode(p *Piece) error { return nil }

func (f *fakeFeed) Fetch(ctx context.Context, i int, p *Piece) error {
	if hook := f.m.store.onFeed; hook != nil {
		if err := hook(i); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return f.m.fill(p, f.gfns[i*f.piece():min((i+1)*f.piece(), len(f.gfns))])
}

// Orders are the working set's, read in pieces, and that of the layout: block for block.
func (m *fakeImage) Orders() (orders []Order) {
	if set := m.workingSet(); len(set) > 0 {
		orders = append(orders, newFakeOrder(m, set, uint64(cmp.Or(m.store.piece, fakePiece))))
	}
	if m.LocalBlocks {
		orders = append(orders, newFakeOrder(m, m.layout(), 0))
	}
	return orders
}

// layout is all pages that are not zero, as they are stored.
func (m *fakeImage) layout() (gfns []uint64) {
	for first := range m.stride() {
		gfns = m.Neighbours(first, gfns)
	}
	return gfns
}

// A fakeOrder is read in frames of one size, each ascending, or at will.
type fakeOrder struct {
	m     *fakeImage
	gfns  []uint64
	at    map[uint64]uint64
	frame uint64 // 0: at will
}

func newFakeOrder(m *fakeImage, gfns []uint64, frame uint64) *fakeOrder {
	o := &fakeOrder{m: m, gfns: gfns, at: make(map[uint64]uint64, len(gfns)), frame: frame}
	for i, gfn := range gfns {
		o.at[gfn] = uint64(i)
	}
	return o
}

func (o *fakeOrder) Len() uint64 { return uint64(len(o.gfns)) }

func (o *fakeOrder) Position(gfn uint64) (uint64, bool) {
	pos, ok := o.at[gfn]
	return pos, ok
}

func (o *fakeOrder) Part(pos, max uint64) uint64 {
	if o.frame == 0 {
		return min(pos+max, o.Len())
	}
	return min((pos/o.frame+1)*o.frame, o.Len())
}

func (o *fakeOrder) GFNs(pos, end uint64, dst []uint64) []uint64 {
	return append(dst, o.gfns[min(pos, o.Len()):min(end, o.Len())]...)
}

func (o *fakeOrder) Read(_ context.Context, pos, end uint64, p *Piece) error {
	if o.frame == 0 {
		return o.m.fill(p, o.gfns[pos:end])
	}
	gfns := slices.Clone(o.gfns[pos/o.frame*o.frame : o.Part(pos, 0)])
	slices.Sort(gfns)
	return o.m.fill(p, gfns)
}
