package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
)

// scattered is an image of random pages, in a working set whose order has nothing to do with theirs:
// its leaves are long, and those of a later image are differences from them.
func scattered(r *rand.Rand, pages int) (testImage, []Run) {
	m := make(testImage, pages)
	set := make([]Run, pages)
	for i := range m {
		m[i] = 1000 + r.Uint64()>>8
		set[i] = Run{GFN: uint64(i), Count: 1}
	}
	r.Shuffle(pages, func(i, j int) { set[i], set[j] = set[j], set[i] })
	return m, set
}

// changed returns an image in which a share of the pages are other ones, wherever they lie.
func (m testImage) changed(r *rand.Rand, share float64) testImage {
	out := append(testImage(nil), m...)
	for i := range out {
		if r.Float64() < share {
			out[i] = 1000 + r.Uint64()>>8
		}
	}
	return out
}

// A collection keeps what any checkpoint has, whichever of them it looks at first.
func TestGCKeepsWhatIsShared(t *testing.T) {
	for _, names := range [][2]string{{"z", "a"}, {"a", "z"}} {
		for _, share := range []float64{0.02, 0.1, 0.3, 0.7} {
			t.Run(fmt.Sprintf("%s from %s, %v", names[1], names[0], share), func(t *testing.T) {
				r := rand.New(rand.NewPCG(81, uint64(share*100)))
				s := openTest(t, t.TempDir()+"/s", nil)
				defer s.Close()
				parent, set := scattered(r, 4096)
				child := parent.changed(r, share)
				mustImport(t, s, names[0], writeSource(t, parent.bytes(), nil), set)
				mustImport(t, s, names[1], writeSource(t, child.bytes(), nil), nil)
				for range 2 {
					rep, err := s.GC(context.Background(), GCOptions{})
					if err != nil {
						t.Fatal(err)
					}
					if rep.DroppedPages != 0 {
						t.Errorf("%d pages dropped, of which none is dead", rep.DroppedPages)
					}
				}
				checkClean(t, s, true)
				for i, img := range []testImage{parent, child} {
					m := openImage(t, s, names[i])
					sameImage(t, m, img.bytes())
					m.Close()
				}
			})
		}
	}
}

// sharingStore has three checkpoints, the last of which is removed, so that there is something to
// collect in every pack.
func sharingStore(t *testing.T) *Store {
	t.Helper()
	r := rand.New(rand.NewPCG(82, 1))
	s := openTest(t, t.TempDir()+"/s", nil)
	t.Cleanup(func() { s.Close() })
	base, set := scattered(r, 3000)
	state := map[string][]byte{"state": make([]byte, 3*filePartSize/2)}
	mustImport(t, s, "m", writeSource(t, base.bytes(), state), set)
	mustImport(t, s, "a", writeSource(t, base.changed(r, 0.4).bytes(), state), set[:900])
	mustImport(t, s, "z", writeSource(t, base.changed(r, 0.1).bytes(), nil), nil)
	// What of m's pages nobody else has is more than a fifth of its pack.
	if err := s.Remove(context.Background(), "m"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(context.Background(), "z"); err != nil {
		t.Fatal(err)
	}
	return s
}

// Whatever the first walk forgets, the second look finds, and nothing is deleted.
func TestGCAudit(t *testing.T) {
	ctx := context.Background()
	s := sharingStore(t)
	before := blobFiles(t, s.Dir())
	newCollector := func() (*collector, []uint64, []victim) {
		c := &collector{s: s}
		if err := c.mark(ctx); err != nil {
			t.Fatal(err)
		}
		remove, rewrite, err := c.plan(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return c, remove, rewrite
	}
	c, remove, rewrite := newCollector()
	if len(remove) == 0 || len(rewrite) == 0 {
		t.Fatalf("removes %v, rewrites %v", remove, rewrite)
	}
	if err := c.audit(ctx, remove, rewrite); err != nil {
		t.Fatalf("nothing is forgotten: %v", err)
	}
	refused := func(what string, err error) {
		t.Helper()
		var l *LivenessError
		if !errors.As(err, &l) || l.Checkpoint == "" || l.Pack == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	forgot := 0
	for _, v := range rewrite {
		p := c.live.packs[v.number]
		for what, b := range map[string]bitmap{"slot": p.slots, "record": p.records} {
			for w := range b {
				if b[w] == 0 {
					continue
				}
				was := b[w]
				b[w] &= b[w] - 1
				refused(fmt.Sprintf("a %s of pack %d is forgotten", what, v.number),
					c.audit(ctx, remove, rewrite))
				b[w] = was
				forgot++
			}
		}
	}
	if forgot < 20 {
		t.Errorf("%d cases", forgot)
	}
	for _, number := range c.listed {
		refused("a pack is forgotten", c.audit(ctx, append(remove, number), nil))
	}
	segment := s.cat.m["a"].segment
	c.live.packs[segment].segment = false
	refused("frames are forgotten", c.audit(ctx, nil, []victim{{number: segment}}))
	if after := blobFiles(t, s.Dir()); len(after) != len(before) {
		t.Errorf("%v became %v", before, after)
	}
	if _, err := s.GC(ctx, GCOptions{}); err != nil {
		t.Fatal(err)
	}
	checkClean(t, s, true)
}

// A root that the first walk did not see ends a collection.
func TestGCRootComes(t *testing.T) {
	ctx := context.Background()
	s := sharingStore(t)
	c := &collector{s: s}
	if err := c.mark(ctx); err != nil {
		t.Fatal(err)
	}
	remove, rewrite, err := c.plan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Dir(), rootName("a", 0))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{rootName("b", 0), rootName("A", 7)} {
		other := filepath.Join(s.Dir(), name)
		if err := os.WriteFile(other, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.audit(ctx, remove, rewrite); !errors.Is(err, ErrChanged) {
			t.Errorf("%s came: %v", name, err)
		}
		if err := os.Remove(other); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.audit(ctx, remove, rewrite); err != nil {
		t.Error(err)
	}
}

// openCounter counts the blobs of a store that are open.
type openCounter struct {
	blob.Store
	now, most atomic.Int64
}

type countedObject struct {
	blob.Object
	c *openCounter
}

func (c *openCounter) Open(ctx context.Context, name string) (blob.Object, error) {
	o, err := c.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); {
		most = c.most.Load()
	}
	return countedObject{o, c}, nil
}

func (o countedObject) Close() error {
	o.c.now.Add(-1)
	return o.Object.Close()
}

// Checks and collections have few blobs open at once, however many there are.
func TestFewBlobsAtOnce(t *testing.T) {
	ctx := context.Background()
	limitFiles(t, 400)
	bound := int64(400 / 4)
	blobs := &openCounter{Store: blobtest.NewMem()}
	s := openTest(t, t.TempDir()+"/s", blobs)
	defer s.Close()
	const checkpoints = 200
	for i := range checkpoints {
		img := make(testImage, 40)
		for j := range img {
			img[j] = uint64(1000*i + j + 1)
		}
		mustImport(t, s, fmt.Sprint("c", i), writeSource(t, img.bytes(), nil), []Run{{0, 30}})
	}
	for i := 0; i < checkpoints; i += 3 {
		if err := s.Remove(ctx, fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"check", func() error { _, err := s.Check(ctx, CheckOptions{ReadData: true}); return err }},
		{"gc", func() error { _, err := s.GC(ctx, GCOptions{}); return err }},
	} {
		blobs.most.Store(0)
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if most := blobs.most.Load(); most < bound/2 || most > bound+8 {
			t.Errorf("%s had %d blobs open at once", c.what, most)
		}
		if now := blobs.now.Load(); now != 0 {
			t.Errorf("%s left %d blobs open", c.what, now)
		}
	}
}

// Blobs of roots are not listed in the order of the names of their checkpoints: "b-1.0.ckpt" comes before
// "b.0.ckpt".
func TestGCNamesInAnyOrder(t *testing.T) {
	s := openTest(t, t.TempDir()+"/store", nil)
	r := rand.New(rand.NewPCG(110, 1))
	want := map[string][]byte{}
	for _, name := range []string{"b", "b-1", "b.c", "B", "x"} {
		want[name] = randomImage(r, 60).bytes()
		mustImport(t, s, name, writeSource(t, want[name], nil), nil)
	}
	if err := s.Remove(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	delete(want, "x")
	if rep, err := s.GC(t.Context(), GCOptions{}); err != nil || rep.RemovedPacks == 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	for name, img := range want {
		m := openImage(t, s, name)
		sameImage(t, m, img)
		m.Close()
	}
}
