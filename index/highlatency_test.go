package index

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/blob/disk"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// onDisk opens a store again with its blobs on a simulated disk with one head, and returns the disk.
func onDisk(t testing.TB, dir string) (*Store, *disk.Disk) {
	t.Helper()
	return onSlowDisk(t, dir, 200*time.Microsecond)
}

// onSlowDisk is onDisk with so much for a seek.
func onSlowDisk(t testing.TB, dir string, seek time.Duration) (*Store, *disk.Disk) {
	t.Helper()
	d := disk.New(disk.Spec{Name: "test", Seek: seek, Bandwidth: 1e15, Parallel: 1})
	s, err := Open(t.Context(), dir, OpenOptions{Log: testLog(t),
		Wrap: func(ctx context.Context, b blob.Store) (blob.Store, error) {
			return disk.Wrap(ctx, b, d)
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, d
}

// spent says what a disk did for fn.
func spent(d *disk.Disk, fn func()) (requests, seeks int64) {
	before := d.Stats()
	fn()
	after := d.Stats()
	return after.Requests - before.Requests, after.Seeks - before.Seeks
}

// dearImage is a store of one image, most of it in packs of 256 pages, with a working set whose
// pages come from all over it.
func highLatencyImage(t testing.TB) (dir string, img []byte, set []Run) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 3))
	dir = filepath.Join(t.TempDir(), "store")
	s := openTest(t, dir, nil)
	s.limits.packPages = 256
	content := make(testImage, 2048)
	for i := range content {
		content[i] = uint64(i + 1)
	}
	for _, gfn := range r.Perm(len(content))[:600] {
		set = append(set, Run{uint64(gfn), 1})
	}
	img = content.bytes()
	mustImport(t, s, "a", writeSource(t, img, map[string][]byte{"state": []byte("of the VMM")}), set)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, img, set
}

// TestHighLatencyOpen: opening an image takes two reads for the root, one for the end of each pack, and
// one for the records of each that has any; its files and the image after them cost the root no
// more.
func TestHighLatencyOpen(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s, d := onDisk(t, dir)
	if n, _ := spent(d, func() {
		if b, err := s.ReadFile(t.Context(), "a", "state"); err != nil || string(b) != "of the VMM" {
			t.Fatal(err)
		}
	}); n != 2 {
		t.Errorf("a file that stands in the root took %d reads, want 2", n)
	}
	var m *Image
	n, _ := spent(d, func() { m = openImage(t, s, "a") })
	defer m.Close()
	packs := int64(len(m.packs))
	if packs < 9 || n < packs || n > packs+2 {
		t.Errorf("opening took %d reads with %d packs, one of which has the page map", n, packs)
	}
	sameImage(t, m, img)
}

// TestHighLatencyFault: a page comes with its block, in one read, and then whatever is asked of the block
// takes none; many who want it at once share that read.
func TestHighLatencyFault(t *testing.T) {
	dir, img, set := highLatencyImage(t)
	s, d := onDisk(t, dir)
	m := openImage(t, s, "a")
	defer m.Close()
	page := func(gfn uint64) {
		b := make([]byte, PageSize)
		if err := m.ReadPage(gfn, b); err != nil || !bytes.Equal(b, img[gfn*PageSize:][:PageSize]) {
			t.Errorf("page %d: wrong, %v", gfn, err)
		}
	}
	b, ok := m.Block(set[20].GFN)
	if !ok {
		t.Fatal("no block")
	}
	gfns := m.BlockGFNs(b, nil)
	if len(gfns) != pack.BlockPages {
		t.Fatalf("a block of %d pages", len(gfns))
	}
	if n, seeks := spent(d, func() { page(gfns[3]) }); n != 1 || seeks != 1 {
		t.Errorf("a fault took %d reads, %d seeks", n, seeks)
	}
	if n, _ := spent(d, func() {
		var p Piece
		if err := m.ReadBlock(b, &p); err != nil || len(p.GFNs) != len(gfns) {
			t.Errorf("read block: %v", err)
		}
		comparePiece(t, &p, img, map[uint64]int{})
		for _, gfn := range gfns {
			page(gfn)
		}
		pair := make([]byte, 2*PageSize)
		if err := m.readPages(gfns[4:6], pair); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("the other pages of the block took %d reads", n)
	}
	other, _ := m.Block(set[300].GFN)
	if n, _ := spent(d, func() {
		var wg sync.WaitGroup
		for _, gfn := range m.BlockGFNs(other, nil) {
			wg.Go(func() { page(gfn) })
		}
		wg.Wait()
	}); n != 1 {
		t.Errorf("16 faults on one block at once took %d reads", n)
	}
}

// TestHighLatencyStretch: where a seek takes as long as some blocks, a page comes with the blocks beside
// its own.
func TestHighLatencyStretch(t *testing.T) {
	dir, img, set := highLatencyImage(t)
	s, d := onSlowDisk(t, dir, 4*latencyOfBlock)
	m := openImage(t, s, "a")
	defer m.Close()
	page := make([]byte, PageSize)
	read := func(block int) {
		gfn := set[block*pack.BlockPages].GFN
		if err := m.ReadPage(gfn, page); err != nil || !bytes.Equal(page, img[gfn*PageSize:][:PageSize]) {
			t.Errorf("block %d: wrong, %v", block, err)
		}
	}
	for _, c := range []struct {
		block int
		reads int64
	}{{2, 1}, {0, 0}, {1, 0}, {3, 0}, {4, 1}, {15, 1}, {16, 1}, {12, 0}} {
		if n, _ := spent(d, func() { read(c.block) }); n != c.reads {
			t.Errorf("block %d took %d reads, want %d", c.block, n, c.reads)
		}
	}
	// Pages of two blocks, and of two stretches: one of them is at hand.
	var gfns []uint64
	for _, r := range set[20*pack.BlockPages-8 : 20*pack.BlockPages+8] {
		gfns = append(gfns, r.GFN)
	}
	pages := make([]byte, len(gfns)*PageSize)
	if n, _ := spent(d, func() {
		if err := m.readPages(gfns, pages); err != nil {
			t.Error(err)
		}
	}); n != 1 {
		t.Errorf("pages of two stretches took %d reads, want 1", n)
	}
	for i, gfn := range gfns {
		if !bytes.Equal(pages[i*PageSize:][:PageSize], img[gfn*PageSize:][:PageSize]) {
			t.Errorf("page %d is wrong", gfn)
		}
	}
}

// TestHighLatencyFeeds: what is prefetched is read without a seek but the first, of each pack.
func TestHighLatencyFeeds(t *testing.T) {
	dir, img, _ := highLatencyImage(t)
	s, d := onDisk(t, dir)
	m := openImage(t, s, "a")
	defer m.Close()
	for _, c := range []struct {
		feed  Feed
		seeks int64
	}{{m.WorkingSetFeed(), 1}, {m.EagerFeed(), int64(len(m.packs) - 1)}} {
		seen := map[uint64]int{}
		n, seeks := spent(d, func() {
			var p Piece
			for i := range c.feed.Len() {
				if err := ReadPiece(t.Context(), c.feed, i, &p); err != nil {
					t.Fatal(err)
				}
				comparePiece(t, &p, img, seen)
			}
		})
		if n != int64(c.feed.Len()) || seeks != c.seeks {
			t.Errorf("%d pieces: %d reads, %d seeks, want %d", c.feed.Len(), n, seeks, c.seeks)
		}
	}
}

// TestHighLatencyRest: what a segment has no room for is read in the order in which it is stored, whatever
// the order of its touches.
func TestHighLatencyRest(t *testing.T) {
	dir, img, set := highLatencyImage(t)
	s, d := onDisk(t, dir)
	m := openImage(t, s, "a")
	defer m.Close()
	shuffled := slices.Clone(set)
	rand.New(rand.NewPCG(4, 4)).Shuffle(len(shuffled), func(i, j int) {
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	})
	seen := map[uint64]bool{}
	_, seeks := spent(d, func() {
		for _, gfns := range m.pieces(shuffled) {
			pages := make([]byte, len(gfns)*PageSize)
			if err := m.readPages(gfns, pages); err != nil {
				t.Fatal(err)
			}
			for i, gfn := range gfns {
				seen[gfn] = true
				if !bytes.Equal(pages[i*PageSize:][:PageSize], img[gfn*PageSize:][:PageSize]) {
					t.Fatalf("page %d is wrong", gfn)
				}
			}
		}
	})
	// The set lies together, at the beginning of the packs.
	if len(seen) != len(set) || seeks > 4 {
		t.Errorf("%d pages of %d, %d seeks", len(seen), len(set), seeks)
	}
}

// TestHighLatencyCopies: an image of which most is one page again and again. Its eager feed cuts the
// copies into many pieces and reads the page once; a block does not bring them along.
func TestHighLatencyCopies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openTest(t, dir, nil)
	content := uniqueImage(3000)
	for i := range content {
		if i >= 40 && i < 2900 {
			content[i] = 7
		}
	}
	img := content.bytes()
	mustImport(t, s, "a", writeSource(t, img, nil), nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, d := onDisk(t, dir)
	m := openImage(t, s, "a")
	defer m.Close()
	feed := m.EagerFeed()
	seen := map[uint64]int{}
	n, _ := spent(d, func() {
		var p Piece
		for i := range feed.Len() {
			if err := ReadPiece(t.Context(), feed, i, &p); err != nil {
				t.Fatal(err)
			}
			comparePiece(t, &p, img, seen)
		}
	})
	if len(seen) != 3000 || feed.Len() < 11 || n > 4 {
		t.Errorf("%d pages in %d pieces, %d reads", len(seen), feed.Len(), n)
	}
	b, _ := m.Block(3)
	if gfns := m.BlockGFNs(b, nil); len(gfns) != pack.BlockPages-1 {
		t.Errorf("the block of page 3 brings %d pages", len(gfns))
	}
	sameImage(t, m, img)
}

// TestBlockCacheForgets: the cache keeps the blocks read last, within its bound.
func TestBlockCacheForgets(t *testing.T) {
	dir, _, set := highLatencyImage(t)
	s, d := onDisk(t, dir)
	m := openImage(t, s, "a")
	defer m.Close()
	s.blocks.max = 4
	page := make([]byte, PageSize)
	blocks := func(numbers ...int) {
		for _, i := range numbers {
			if err := m.ReadPage(set[i*pack.BlockPages].GFN, page); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		blocks []int
		reads  int64
	}{{[]int{0, 1, 2, 3}, 4}, {[]int{3, 2, 1, 0}, 0}, {[]int{4, 1, 2, 3}, 1}, {[]int{0, 5, 6, 7}, 4}} {
		if n, _ := spent(d, func() { blocks(c.blocks...) }); n != c.reads {
			t.Errorf("blocks %v took %d reads, want %d", c.blocks, n, c.reads)
		}
		if len(s.blocks.stretches) > 4 || len(s.blocks.order) > 4 {
			t.Errorf("%d blocks at hand", len(s.blocks.stretches))
		}
	}
}

// TestBlockCacheErrors: a block that could not be read is an error for all who wait for it, and is
// read again for the next.
func TestBlockCacheErrors(t *testing.T) {
	dir, img, set := highLatencyImage(t)
	var broken *errblob.Store
	d := disk.New(disk.Spec{Name: "test", Seek: 200 * time.Microsecond, Bandwidth: 1e15, Parallel: 1})
	s, err := Open(t.Context(), dir, OpenOptions{Log: testLog(t),
		Wrap: func(ctx context.Context, b blob.Store) (blob.Store, error) {
			broken = errblob.New(b, nil)
			return disk.Wrap(ctx, broken, d)
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := openImage(t, s, "a")
	defer m.Close()
	gfn, page := set[0].GFN, make([]byte, PageSize)
	broken.SetPlan(errblob.FailNth(broken.Operations()+1, errblob.ErrInjected))
	if err := m.ReadPage(gfn, page); !errors.Is(err, errblob.ErrInjected) {
		t.Errorf("a block that cannot be read: %v", err)
	}
	if err := m.ReadPage(gfn, page); err != nil || !bytes.Equal(page, img[gfn*PageSize:][:PageSize]) {
		t.Errorf("the same again: %v", err)
	}
	// The block alone, where those beside it cannot be read.
	s.blocks.together = 4
	gfn = set[5*pack.BlockPages].GFN
	broken.SetPlan(errblob.FailNth(broken.Operations()+1, errblob.ErrInjected))
	if err := m.ReadPage(gfn, page); err != nil || !bytes.Equal(page, img[gfn*PageSize:][:PageSize]) {
		t.Errorf("a block beside one that cannot be read: %v", err)
	}
}
