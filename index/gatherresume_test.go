package index

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
)

// frailStore is that of a process which dies at some moment: from then on it changes nothing.
type frailStore struct {
	blob.Store
	dead bool
}

func (s *frailStore) Create(ctx context.Context, name string) (blob.Writer, error) {
	if s.dead {
		return nil, errKilled
	}
	w, err := s.Store.Create(ctx, name)
	return frailWriter{w, s}, err
}

func (s *frailStore) Remove(ctx context.Context, name string) error {
	if s.dead {
		return errKilled
	}
	return s.Store.Remove(ctx, name)
}

type frailWriter struct {
	blob.Writer
	s *frailStore
}

func (w frailWriter) Commit() error {
	if w.s.dead {
		return errors.Join(errKilled, w.Abort())
	}
	return w.Writer.Commit()
}

// together says whether all versions of each page lie in one pack.
func together(t *testing.T, s *Store, images map[string]testImage) bool {
	t.Helper()
	lies := map[int]uint64{}
	for _, name := range sortedKeys(images) {
		m := openImage(t, s, name)
		for gfn := range images[name] {
			number := m.pages.ref(uint64(gfn)) >> 24
			if was := lies[gfn]; was != 0 && was != number {
				m.Close()
				return false
			}
			lies[gfn] = number
		}
		m.Close()
	}
	return true
}

// However often it is told to end, or killed, the pages that were copied need not be copied again. Each try
// here may do a quarter of the work.
func TestGatherResumes(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed %v", killed), func(t *testing.T) {
			mem, dir := blobtest.NewMem(), t.TempDir()+"/s"
			s := openTest(t, dir, mem)
			images := machine(t, s, newRand(t), 800, 3, 0.8)
			waits := 0
			tried := func(s *Store, most int, die func()) error {
				waits = 0
				s.limits.gatherPages, s.limits.gatherPart = 1, 100
				_, err := s.Repack(t.Context(), RepackOptions{Most: 1,
					Wait: func(context.Context) error {
						if waits++; waits > most {
							die()
							return errKilled
						}
						return nil
					}})
				return err
			}
			// What all of it takes, on a copy.
			whole := openTest(t, t.TempDir()+"/s", blobtest.NewMem())
			machine(t, whole, newRand(t), 800, 3, 0.8)
			if err := tried(whole, 1<<30, func() {}); err != nil {
				t.Fatal(err)
			}
			all := waits
			for tries := 1; !together(t, s, images); tries++ {
				if tries == 25 {
					t.Fatalf("not done after %d tries; without an interruption it waits %d times", tries, all)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				frail := &frailStore{Store: mem}
				s = openTest(t, dir, frail)
				err := tried(s, all/4, func() { frail.dead = killed })
				if err != nil && !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				frail.dead = false
				sameImages(t, s, images)
				checkClean(t, s, true)
			}
			if _, err := s.GC(t.Context(), GCOptions{}); err != nil {
				t.Fatal(err)
			}
			sameImages(t, s, images)
			checkClean(t, s, true)
		})
	}
}

// What an interrupted one has left is looked at before a root refers to it.
func TestGatherResumesFromDamaged(t *testing.T) {
	mem, dir := blobtest.NewMem(), t.TempDir()+"/s"
	s := openTest(t, dir, mem)
	images := machine(t, s, newRand(t), 300, 2, 0.8)
	before, _ := s.packs.numbers()
	s.limits.gatherPages = 1
	stop := errors.New("stop")
	_, err := s.Repack(t.Context(), RepackOptions{Wait: func(context.Context) error {
		if now, _ := s.packs.numbers(); len(now) > len(before) {
			return stop
		}
		return nil
	}})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	after, _ := s.packs.numbers()
	if len(after) <= len(before) {
		t.Fatal("nothing is left")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := ""
	list, err := mem.List(t.Context(), "packs/")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if strings.HasPrefix(b.Name, fmt.Sprintf("packs/%010d.", after[len(before)])) {
			name = b.Name
		}
	}
	b := blobtest.Get(t, mem, name)
	b[len(b)/3] ^= 1
	if err := mem.Remove(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	blobtest.Put(t, mem, name, b)
	s = openTest(t, dir, mem)
	s.limits.gatherPages = 1
	if rep := mustRepack(t, s, RepackOptions{}); rep.GatheredPages == 0 {
		t.Errorf("%+v", rep)
	}
	onePack(t, s, images)
	sameImages(t, s, images)
	if _, err := s.GC(t.Context(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	checkClean(t, s, true)
}

// More checkpoints of a machine than packs may be open: each pack is opened a few times, and not for each
// leaf of a page map.
func TestGatherOpensFewPacks(t *testing.T) {
	const checkpoints, leaves = 40, 12
	r := newRand(t)
	tally := &openTally{Store: blobtest.NewMem(), n: map[string]int{}}
	s := openTest(t, t.TempDir()+"/s", tally)
	s.limits.gatherPages = 1
	img := make(testImage, leaves*LeafPages)
	for i := range img {
		if i%16 == 0 {
			img[i] = 1 + r.Uint64()>>8
		}
	}
	images := map[string]testImage{}
	for i := range checkpoints {
		name := fmt.Sprintf("m%02d", i)
		images[name] = img
		mustImport(t, s, name, writeSource(t, img.bytes(), nil), nil)
		img = img.evolve(r, 0.5)
	}
	limitFiles(t, 64) // a walk may have 16 packs open
	clear(tally.n)
	if rep := mustRepack(t, s, RepackOptions{DryRun: true}); rep.GatheredPages == 0 {
		t.Errorf("%+v", rep)
	}
	name, n := tally.most()
	t.Logf("%s was opened %d times", name, n)
	if n > leaves*2 {
		t.Errorf("%s was opened %d times", name, n)
	}
}
