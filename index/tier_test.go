package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// retier writes packs of a store again, with the pages of each as tier says.
func retier(t testing.TB, s *Store, which func(number uint64) bool, tier func(slot uint32) pack.Tier) {
	t.Helper()
	if err := tryRetier(s, which, tier); err != nil {
		t.Fatal(err)
	}
}

func tryRetier(s *Store, which func(number uint64) bool, tier func(slot uint32) pack.Tier) error {
	ctx := context.Background()
	done, err := s.write(ctx)
	if err != nil {
		return err
	}
	defer done()
	enc, err := pack.NewEncoder(s.file.Profile)
	if err != nil {
		return err
	}
	numbers, _ := s.packs.numbers()
	for _, number := range numbers {
		if !which(number) {
			continue
		}
		_, _, err := s.renew(ctx, number, func(old *pack.Reader, w *pack.Writer) error {
			return pack.Rewrite(ctx, old, w, enc, s.key, pack.Keep{Tier: tier})
		}, sameLife)
		if err != nil {
			return err
		}
	}
	return nil
}

// sameLife says whether two generations of a pack have the same slots.
func sameLife(old, renewed *pack.Reader) error {
	for slot := range uint32(old.Slots()) {
		if old.Dead(slot) != renewed.Dead(slot) {
			return fmt.Errorf("slot %d was dead: %v, and is: %v", slot, old.Dead(slot), renewed.Dead(slot))
		}
	}
	return nil
}

// coolPack puts pages of the pack that is ruined into clusters.
func coolPack(t *testing.T, dir string, key pack.HashKey) {
	t.Helper()
	rewritePack(t, dir, func(old *pack.Reader, w *pack.Writer) error {
		enc, err := pack.NewEncoder(pack.ProfileDefault)
		if err != nil {
			return err
		}
		return pack.Rewrite(t.Context(), old, w, enc, key, pack.Keep{Tier: mixed(0)})
	})
}

func allPacks(uint64) bool { return true }

func allCold(uint32) pack.Tier { return pack.TierCold }

// mixed is tiers in which pages of all kinds lie side by side.
func mixed(seed uint32) func(slot uint32) pack.Tier {
	return func(slot uint32) pack.Tier { return pack.Tier((slot/5 + slot/31 + seed) % 4) }
}

// clustersOf counts the clusters of the packs of an image.
func clustersOf(m *Image) (n int) {
	for i := range m.packs {
		if p, err := m.acquire(uint64(i)); err == nil {
			n += p.Clusters()
			p.release()
		}
	}
	return n
}

// inCluster says whether a page lies in a cluster.
func inCluster(m *Image, gfn uint64) bool {
	place, ok := m.pages.place(gfn)
	if !ok {
		return false
	}
	p, err := m.acquire(place >> 24)
	if err != nil {
		return false
	}
	defer p.release()
	_, ok = p.ClusterOf(pack.Ref(place).Slot())
	return ok
}

// doRetier writes some packs again, whose images may be open.
func (m *model) doRetier() {
	retier(m.t, m.s, func(uint64) bool { return m.r.IntN(2) == 0 }, mixed(m.r.Uint32N(100)))
}

// An image reads the same in every way, whatever its pages are stored as.
func TestTiersOfImage(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s := openTest(t, dir, nil)
	for i, tier := range []func(uint32) pack.Tier{mixed(0), allCold, mixed(1), mixed(2)} {
		before := openImage(t, s, "a")
		retier(t, s, allPacks, tier)
		m := openImage(t, s, "a")
		if (clustersOf(m) > 0) == (clustersOf(before) > 0) && i == 0 {
			t.Error("no clusters")
		}
		sameImage(t, m, img)
		sameImage(t, before, img) // as it was
		sameOrders(t, m, img)
		m.Close()
		before.Close()
		exportDespite(t, s, "a", img, map[string][]byte{"state": []byte("of the VMM")}, nil)
		checkClean(t, s, true)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// What goes through all of an image in the order in which it lies decodes each cluster once: a restore of
// all of it, a stream in the order of the layout, an export, a check.
func TestClustersAreDecodedOnce(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s := openTest(t, dir, nil)
	retier(t, s, allPacks, allCold)
	m := openImage(t, s, "a")
	defer m.Close()
	all := uint64(clustersOf(m))
	once := func(what string, do func()) {
		t.Helper()
		before := s.DecodedClusters()
		do()
		if n := s.DecodedClusters() - before; n != all {
			t.Errorf("%s: %d of %d clusters were decoded", what, n, all)
		}
	}
	once("feed", func() {
		f, p := m.EagerFeed(), new(Piece)
		for i := range f.Len() {
			if err := ReadPiece(t.Context(), f, i, p); err != nil {
				t.Fatal(err)
			}
		}
	})
	orders := m.Orders()
	for _, part := range []uint64{1, 16, 30, 128} {
		once(fmt.Sprintf("layout, %d at once", part), func() {
			o, p := orders[len(orders)-1].(*layoutOrder), new(Piece)
			for pos := uint64(0); pos < o.Len(); {
				end := o.Part(pos, part)
				if err := o.Read(t.Context(), pos, end, p); err != nil {
					t.Fatal(err)
				}
				pos = end
			}
		})
	}
	once("export", func() {
		exportDespite(t, s, "a", img, map[string][]byte{"state": []byte("of the VMM")}, nil)
	})
	once("check", func() { checkClean(t, s, true) })
}

// sameOrders reads the orders of an image, part by part.
func sameOrders(t testing.TB, m *Image, want []byte) {
	t.Helper()
	for _, o := range m.Orders() {
		seen := map[uint64]int{}
		var p Piece
		for pos := uint64(0); pos < o.Len(); {
			end := o.Part(pos, 100)
			for i, gfn := range o.GFNs(pos, end, nil) {
				if _, set := o.(*setOrder); set {
					break
				}
				if at, ok := o.Position(gfn); !ok || at != pos+uint64(i) {
					t.Fatalf("page %d is at %d, want %d: %v", gfn, at, pos+uint64(i), ok)
				}
			}
			if err := o.Read(context.Background(), pos, end, &p); err != nil {
				t.Fatal(err)
			}
			comparePiece(t, &p, want, seen)
			pos = end
		}
		if uint64(len(seen)) != o.Len() {
			t.Fatalf("%d pages in an order of %d", len(seen), o.Len())
		}
	}
}

// A cold page comes with its cluster, in one read, and nothing of the cluster is read again for the others.
func TestHighLatencyCluster(t *testing.T) {
	dir, img, set := highLatencyImage(t)
	s := openTest(t, dir, nil)
	retier(t, s, allPacks, allCold)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, d := onDisk(t, dir)
	m := openImage(t, s, "a")
	defer m.Close()
	b, ok := m.Block(set[20].GFN)
	gfns := m.BlockGFNs(b, nil)
	if !ok || len(gfns) < 2 {
		t.Fatalf("a cluster of %d pages", len(gfns))
	}
	page := make([]byte, PageSize)
	for i, gfn := range gfns {
		n, _ := spent(d, func() {
			if err := m.ReadPage(gfn, page); err != nil || !bytes.Equal(page, img[gfn*PageSize:][:PageSize]) {
				t.Errorf("page %d: wrong, %v", gfn, err)
			}
		})
		if i == 0 && n != 1 || i > 0 && n != 0 {
			t.Errorf("page %d of the cluster took %d reads", i, n)
		}
	}
	if n, _ := spent(d, func() {
		var p Piece
		if err := m.ReadBlock(b, &p); err != nil || len(p.GFNs) != len(gfns) {
			t.Errorf("read cluster: %v", err)
		}
	}); n != 0 {
		t.Errorf("the cluster took %d reads more", n)
	}
	sameImage(t, m, img)
	seen := map[uint64]int{}
	feed := m.EagerFeed()
	n, seeks := spent(d, func() {
		var p Piece
		for i := range feed.Len() {
			if err := ReadPiece(t.Context(), feed, i, &p); err != nil {
				t.Fatal(err)
			}
			comparePiece(t, &p, img, seen)
		}
	})
	// A piece may have clusters and blocks.
	if n > 2*int64(feed.Len()) || seeks > 2*int64(len(m.packs)) {
		t.Errorf("%d pieces: %d reads, %d seeks, %d packs", feed.Len(), n, seeks, len(m.packs))
	}
}

// A cluster is read once by a read that wants several of its pages, and by a feed.
func TestClustersAreReadOnce(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s := openTest(t, dir, nil)
	retier(t, s, allPacks, allCold)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var reads *errblob.Store
	s, err := Open(t.Context(), dir, OpenOptions{Log: testLog(t),
		Wrap: func(_ context.Context, b blob.Store) (blob.Store, error) {
			reads = errblob.New(b, nil)
			return reads, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := openImage(t, s, "a")
	defer m.Close()
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		n := uint64(2 + r.IntN(100))
		first := r.Uint64N(m.Pages() - n)
		blocks, alone := map[Block]bool{}, 0
		for gfn := first; gfn < first+n; gfn++ {
			b, _ := m.Block(gfn)
			if !inCluster(m, gfn) {
				alone++
			} else {
				blocks[b] = true
			}
		}
		before, buf := reads.Operations(), make([]byte, n*PageSize)
		if err := m.ReadRange(first, buf); err != nil || !bytes.Equal(buf, img[first*PageSize:][:n*PageSize]) {
			t.Fatalf("range %d+%d: wrong, %v", first, n, err)
		}
		if got := reads.Operations() - before; got > len(blocks)+alone {
			t.Errorf("%d pages in %d clusters, and %d beside them, took %d reads", n, len(blocks), alone, got)
		}
	}
}

// Where reads take long, packs that are written again are read from end to end.
func TestHighLatencyRetier(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s, d := onDisk(t, dir)
	m := openImage(t, s, "a")
	packs := int64(len(m.packs))
	m.Close()
	for i, tier := range []func(uint32) pack.Tier{allCold, mixed(1), mixed(2)} {
		n, _ := spent(d, func() { retier(t, s, allPacks, tier) })
		// Some for each block, its directory and its records; not one for each page.
		if most := 60 * packs; n > most {
			t.Errorf("round %d: %d packs of 2048 pages took %d reads, want %d at most", i, packs, n, most)
		}
	}
	m = openImage(t, s, "a")
	defer m.Close()
	sameImage(t, m, img)
}

// A page whose slot its pack does not have is an error in every way of reading, also where the pack has
// clusters: never a page of one of them.
func TestSlotsBeyondPack(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s := openTest(t, dir, nil)
	retier(t, s, allPacks, allCold)
	m := openImage(t, s, "a")
	defer m.Close()
	const gfn = 77
	misplace(t, m, gfn)
	page := make([]byte, 3*PageSize)
	if err := m.ReadPage(gfn, page); !isDamage(err) {
		t.Fatalf("ReadPage: %v", err)
	}
	lost := func(how string, err error) {
		t.Helper()
		var p *PagesError
		if !errors.As(err, &p) || !slices.Equal(p.GFNs, []uint64{gfn}) {
			t.Errorf("%s: %v, want an error of page %d", how, err, gfn)
		}
	}
	lost("ReadRange", m.ReadRange(gfn-1, page))
	if _, _, ok := m.Cluster(gfn); ok {
		t.Error("it lies in a cluster")
	}
	if b, ok := m.Block(gfn); ok {
		t.Errorf("it lies in block %v", b)
	}
	for _, run := range []uint64{gfn - 1, gfn + 1} {
		b, ok := m.Block(run)
		if !ok || slices.Contains(m.BlockGFNs(b, nil), gfn) {
			t.Errorf("block of page %d: %v, %v", run, m.BlockGFNs(b, nil), ok)
		}
	}
	feed := m.EagerFeed()
	for i := range feed.Len() {
		var p Piece
		err := ReadPiece(t.Context(), feed, i, &p)
		if slices.Contains(feed.GFNs(i, nil), gfn) {
			lost("EagerFeed", err)
		} else if err != nil {
			t.Fatal(err)
		}
		comparePiece(t, &p, img, map[uint64]int{})
	}
}

// misplace makes a page map say that a page is in a slot which its pack does not have.
func misplace(t *testing.T, m *Image, gfn uint64) {
	t.Helper()
	place, ok := m.pages.place(gfn)
	if !ok {
		t.Fatal("a zero page")
	}
	p, err := m.acquire(place >> 24)
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	if p.Clusters() == 0 {
		t.Fatal("no clusters")
	}
	b := m.pages.branches[gfn/branchPages]
	b.places[slices.Index(b.places, place)] = place&^(pack.MaxSlots-1) | uint64(p.Slots()+3)
}

// An image that is open reads the same while its packs are written again, twice, and on a medium whose blocks
// are kept by their numbers: each generation has others. So does one that is opened in between. Run with
// -race.
func TestReadsDuringRetier(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s := openTest(t, dir, nil)
	retier(t, s, allPacks, mixed(0))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = onSlowDisk(t, dir, 4*latencyOfBlock)
	first := openImage(t, s, "a")
	defer first.Close()
	var stop atomic.Bool
	var readers sync.WaitGroup
	for i := range uint64(2) {
		readers.Go(func() { readUntil(t, first, img, i, &stop) })
	}
	readers.Go(func() {
		for i := uint64(0); !stop.Load(); i++ {
			m := openImage(t, s, "a")
			b := make([]byte, 64*PageSize)
			gfn := i * 37 % (m.Pages() - 64)
			if err := m.ReadRange(gfn, b); err != nil || !bytes.Equal(b, img[gfn*PageSize:][:len(b)]) {
				t.Errorf("range at %d: wrong, %v", gfn, err)
			}
			m.Close()
		}
	})
	for _, tier := range []func(uint32) pack.Tier{allCold, mixed(1)} {
		if err := tryRetier(s, allPacks, tier); err != nil {
			t.Error(err)
		}
		if _, err := s.GC(t.Context(), GCOptions{}); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	readers.Wait()
	sameImage(t, first, img)
	m := openImage(t, s, "a")
	defer m.Close()
	sameImage(t, m, img)
}

// A cold page can be read with its cluster, which has all pages of the image in it, right and in their
// places; no other page has one. It allocates nothing, and is one read; where reads take long, none after
// the first.
func TestClusters(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s := openTest(t, dir, nil)
	retier(t, s, allPacks, mixed(1))
	m := openImage(t, s, "a")
	readClusters(t, m, img)
	// The race detector makes sync.Pool forgetful: then a read may have to make a buffer.
	if n := testing.AllocsPerRun(200, readOneCluster(t, m)); n >= 1 && !raceEnabled {
		t.Errorf("%v allocations a read", n)
	}
	m.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, d := onDisk(t, dir)
	m = openImage(t, s, "a")
	defer m.Close()
	readClusters(t, m, img)
	read := readOneCluster(t, m)
	read()
	if n, _ := spent(d, read); n != 0 {
		t.Errorf("a cluster that was read before took %d reads", n)
	}
}

// readOneCluster returns a function that reads the first cluster of an image, always into the same memory.
func readOneCluster(t testing.TB, m *Image) func() {
	gfn := uint64(0)
	for ; gfn < m.Pages(); gfn++ {
		if _, _, ok := m.Cluster(gfn); ok {
			break
		}
	}
	var c Cluster
	return func() {
		if err := m.ReadCluster(gfn, &c); err != nil {
			t.Fatal(err)
		}
	}
}

func readClusters(t testing.TB, m *Image, img []byte) {
	t.Helper()
	var c Cluster
	var p Piece
	seen := 0
	for gfn := range m.Pages() {
		id, at, ok := m.Cluster(gfn)
		if ok != inCluster(m, gfn) {
			t.Fatalf("page %d: in a cluster: %v", gfn, ok)
		}
		if !ok {
			if err := m.ReadCluster(gfn, &c); err == nil {
				t.Fatalf("page %d has no cluster, and it was read", gfn)
			}
			continue
		}
		seen++
		if err := m.ReadCluster(gfn, &c); err != nil || c.ID != id ||
			!bytes.Equal(c.Pages[at*PageSize:][:PageSize], img[gfn*PageSize:][:PageSize]) {
			t.Fatalf("page %d: wrong, %v", gfn, err)
		}
		b, _ := m.Block(gfn)
		m.ClusterPages(&c, &p)
		if !slices.Equal(p.GFNs, m.BlockGFNs(b, nil)) {
			t.Fatalf("page %d: the cluster has pages %d", gfn, p.GFNs)
		}
		for i, other := range p.GFNs {
			if !bytes.Equal(p.Pages[i*PageSize:][:PageSize], img[other*PageSize:][:PageSize]) {
				t.Fatalf("page %d of the cluster of %d: wrong", other, gfn)
			}
		}
	}
	if seen == 0 {
		t.Fatal("no clusters")
	}
	if _, _, ok := m.Cluster(m.Pages()); ok {
		t.Error("a page beyond the end has a cluster")
	}
}

// A cluster that is damaged is an error of the pages in it.
func TestDamageOfCluster(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s := openTest(t, dir, nil)
	retier(t, s, allPacks, allCold)
	m := openImage(t, s, "a")
	defer func() { m.Close() }()
	gfn := uint64(0)
	for ; !inCluster(m, gfn); gfn++ {
	}
	place, _ := m.pages.place(gfn)
	p, err := m.acquire(place >> 24)
	if err != nil {
		t.Fatal(err)
	}
	off, _ := p.Unit(pack.Ref(place).Slot())
	name := p.Name()
	p.release()
	changeFile(t, filepath.Join(dir, filepath.FromSlash(name)), func(b []byte) []byte {
		b[off+5] ^= 0x10
		return b
	})
	m.Close()
	m = openImage(t, s, "a")
	id, _, _ := m.Cluster(gfn)
	var c Cluster
	for other := range m.Pages() {
		o, at, ok := m.Cluster(other)
		if !ok {
			continue
		}
		err := m.ReadCluster(other, &c)
		if o == id && (!isDamage(err) || len(c.Pages) > 0) {
			t.Errorf("page %d of the damaged cluster: %v", other, err)
		}
		want := img[other*PageSize:][:PageSize]
		if o != id && (err != nil || !bytes.Equal(c.Pages[at*PageSize:][:PageSize], want)) {
			t.Errorf("page %d: wrong, %v", other, err)
		}
	}
}
