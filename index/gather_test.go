package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index/pack"
)

// machine imports checkpoints of one machine, of whose pages a share changes a little each time.
func machine(t *testing.T, s *Store, r *rand.Rand, pages, checkpoints int, share float64) (
	images map[string]testImage,
) {
	t.Helper()
	img := likeMemory(r, pages)
	images = map[string]testImage{}
	for i := range checkpoints {
		name := fmt.Sprintf("m%d", i)
		if i > 0 {
			img = img.evolve(r, share)
		}
		images[name] = img
		mustImport(t, s, name, writeSource(t, img.bytes(), map[string][]byte{"state": []byte(name)}), nil)
	}
	return images
}

// storeBytes is the size of all packs.
func storeBytes(s *Store) (n int64) {
	numbers, _ := s.packs.numbers()
	for _, number := range numbers {
		info, _ := s.packs.info(number)
		n += info.bytes
	}
	return n
}

// onePack says whether all versions of each page lie in one pack.
func onePack(t *testing.T, s *Store, images map[string]testImage) {
	t.Helper()
	lies := map[int]uint64{}
	for _, name := range sortedKeys(images) {
		m := openImage(t, s, name)
		for gfn := range images[name] {
			number := m.pages.ref(uint64(gfn)) >> 24
			for other := range images {
				if images[other][gfn] != images[name][gfn] {
					if was := lies[gfn]; was != 0 && was != number {
						t.Fatalf("versions of page %d lie in the packs %d and %d", gfn, was, number)
					}
					lies[gfn] = number
				}
			}
		}
		m.Close()
	}
	if len(lies) == 0 {
		t.Fatal("no page has versions")
	}
}

// The versions that checkpoints of a machine have of a page come together, and take a part of the space.
// What checkpoints are does not change, and what is open reads on.
func TestGather(t *testing.T) {
	ctx := context.Background()
	r := newRand(t)
	s := openTest(t, t.TempDir()+"/s", nil)
	images := machine(t, s, r, 1500, 3, 0.3)
	if _, err := s.SetWorkingSet(ctx, "m1", []byte("set"), []Run{{10, 20}}); err != nil {
		t.Fatal(err)
	}
	s.limits.gatherPages = 1 << 20
	mustRepack(t, s, RepackOptions{})
	apart := storeBytes(s)
	s.limits.gatherPages = minGather
	before, err := s.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	open := openImage(t, s, "m1")
	defer open.Close()
	would := mustRepack(t, s, RepackOptions{DryRun: true})
	rep := mustRepack(t, s, RepackOptions{})
	if rep.GatheredPages == 0 || would.GatheredPages != rep.GatheredPages || rep.DroppedPages == 0 {
		t.Errorf("%+v; a dry run said %+v", rep, would)
	}
	if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 0 || rep.GatheredPages != 0 {
		t.Errorf("a second time: %+v", rep)
	}
	t.Logf("%d bytes became %d; %+v", apart, storeBytes(s), rep)
	if is := storeBytes(s); is > apart*3/4 {
		t.Errorf("%d bytes became %d", apart, is)
	}
	after, err := s.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range after {
		if c.Generation != before[i].Generation+1 {
			t.Errorf("%s has generation %d, had %d", c.Name, c.Generation, before[i].Generation)
		}
		c.Generation, c.StoredBytes = before[i].Generation, before[i].StoredBytes
		if d := cmp.Diff(before[i], c); d != "" {
			t.Error(d)
		}
	}
	sameImage(t, open, images["m1"].bytes())
	sameImages(t, s, images)
	checkClean(t, s, true)
	for _, name := range sortedKeys(images) {
		if b, err := s.ReadFile(ctx, name, "state"); err != nil || string(b) != name {
			t.Errorf("state of %s: %q, %v", name, b, err)
		}
		if name != "m1" {
			if err := s.Remove(ctx, name); err != nil {
				t.Fatal(err)
			}
			delete(images, name)
			if _, err := s.GC(ctx, GCOptions{}); err != nil {
				t.Fatal(err)
			}
			sameImages(t, s, images)
		}
	}
	checkClean(t, s, true)
}

// A working set is the same one after a repacking, also for those who know the checkpoint as it was before;
// one that replaces it is another one, also if its checkpoint had other names meanwhile.
func TestGatherKeepsSet(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir()+"/s", nil)
	s.limits.gatherPages = 1
	machine(t, s, newRand(t), 300, 3, 0.5)
	if _, err := s.SetWorkingSet(ctx, "m1", []byte("one"), []Run{{10, 20}}); err != nil {
		t.Fatal(err)
	}
	was := s.entry("m1").Version()
	mustRepack(t, s, RepackOptions{})
	is := s.entry("m1").Version()
	if was.Generation == is.Generation {
		t.Error("nothing was brought together")
	}
	read := func(v Version) (string, error) {
		f, err := s.OpenFileOf(ctx, v, fileWorkingSet)
		if err != nil {
			return "", err
		}
		defer f.Close()
		b := make([]byte, f.Size())
		_, err = f.ReadAt(b, 0)
		return string(b), err
	}
	for _, v := range []Version{was, is} {
		if text, err := read(v); text != "one" {
			t.Errorf("%v: %q, %v", v, text, err)
		}
	}
	if _, err := s.SetWorkingSet(ctx, "m1", []byte("two"), []Run{{10, 20}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, v := range []Version{was, is} {
			if text, err := read(v); !errors.Is(err, ErrChanged) {
				t.Errorf("%v: %q, %v", v, text, err)
			}
		}
		for _, names := range [][2]string{{"m1", "other"}, {"other", "m1"}} {
			if _, err := s.Rename(ctx, names[0], names[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// One checkpoint after another, and with fewer pages in a pack than have versions: it comes to an end, with
// all versions of a page together.
func TestGatherAgain(t *testing.T) {
	r := newRand(t)
	s := openTest(t, t.TempDir()+"/s", nil)
	s.limits.gatherPages = 1
	img := likeMemory(r, 600)
	images := map[string]testImage{}
	for i := range 5 {
		name := fmt.Sprintf("m%d", i)
		images[name] = img
		mustImport(t, s, name, writeSource(t, img.bytes(), nil), nil)
		s.limits.packPages = 1 << 16
		if i == 2 {
			s.limits.packPages = 250
		}
		rep := mustRepack(t, s, RepackOptions{})
		if i > 0 && rep.GatheredPages == 0 {
			t.Errorf("%+v", rep)
		}
		s.limits.packPages = 1 << 16
		onePackAfter(t, s, images, i)
		if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 0 || rep.GatheredPages != 0 {
			t.Errorf("a second time: %+v", rep)
		}
		img = img.evolve(r, 0.3)
	}
	sameImages(t, s, images)
	checkClean(t, s, true)
}

func onePackAfter(t *testing.T, s *Store, images map[string]testImage, i int) {
	t.Helper()
	if i > 0 {
		onePack(t, s, images)
	}
}

// Pages that have more versions than are stored together do not move for each that comes, and those that have
// nothing in common do not move at all.
func TestGatherLeaves(t *testing.T) {
	r := newRand(t)
	s := openTest(t, t.TempDir()+"/s", nil)
	s.limits.gatherPages = 1
	img, images := likeMemory(r, 300), map[string]testImage{}
	add := func(first testImage) {
		name := fmt.Sprintf("m%d", len(images))
		img = append(first, img[len(first):]...)
		images[name] = img
		mustImport(t, s, name, writeSource(t, img.bytes(), nil), nil)
	}
	for range maxVersions {
		add(img[:100].evolve(r, 1))
	}
	repacked := func(what string, gathered uint64) {
		t.Helper()
		if rep := mustRepack(t, s, RepackOptions{}); rep.GatheredPages != gathered {
			t.Errorf("%s: %+v, want %d", what, rep, gathered)
		}
	}
	repacked("the first ones", 100*maxVersions)
	add(img[:100].evolve(r, 1))
	repacked("one more", 0)
	add(img[:100].evolve(r, 1))
	repacked("two more", 200)
	add(likeMemory(r, 50))
	repacked("pages of something else", 0)
	sameImages(t, s, images)
	checkClean(t, s, true)
}

// It can end at any moment; what there is then is as good, and the next one does the rest.
func TestGatherEnds(t *testing.T) {
	r := newRand(t)
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	s.limits.gatherPages = 1
	images := machine(t, s, r, 300, 3, 0.5)
	stop := errors.New("stop")
	ended := 0
	for at := 1; ; at += 1 + r.IntN(4) {
		n := 0
		_, err := s.Repack(t.Context(), RepackOptions{Wait: func(context.Context) error {
			if n++; n == at {
				return stop
			}
			return nil
		}})
		sameImages(t, s, images)
		checkClean(t, s, false)
		if err == nil {
			break
		}
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
		ended++
	}
	if ended < 5 {
		t.Errorf("it ended %d times", ended)
	}
	onePack(t, s, images)
	checkClean(t, s, true)
}

// Pages of which one version is damaged stay where they are; the others come together.
func TestGatherDamaged(t *testing.T) {
	r := newRand(t)
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	s.limits.gatherPages = 1
	images := machine(t, s, r, 400, 2, 0.5)
	bad := s.packsOf(t, "m0")[0]
	m := openImage(t, s, "m0")
	p, err := m.acquire(0)
	if err != nil {
		t.Fatal(err)
	}
	off := int64(0)
	for slot := range uint32(200) {
		off += int64(p.StoredBytes(slot))
	}
	p.release()
	m.Close()
	path := filepath.Join(dir, pack.Name(bad, 0))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(3000) {
		b[off+i] ^= 1
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, nil)
	s.limits.gatherPages = 1
	rep, err := s.Repack(t.Context(), RepackOptions{})
	if !isDamage(err) || rep.GatheredPages == 0 || rep.Damaged != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
	m = openImage(t, s, "m0")
	defer m.Close()
	lost, page, want := 0, make([]byte, PageSize), images["m0"].bytes()
	for gfn := range m.Pages() {
		switch err := m.ReadPage(gfn, page); {
		case err != nil:
			lost++
		case string(page) != string(want[gfn*PageSize:][:PageSize]):
			t.Fatalf("page %d differs", gfn)
		}
	}
	if lost == 0 || lost > 20 {
		t.Errorf("%d pages are lost", lost)
	}
	m1 := openImage(t, s, "m1")
	defer m1.Close()
	if err := m1.ReadRange(0, make([]byte, m1.Size())); lost > 0 && err != nil && !isDamage(err) {
		t.Error(err)
	}
}

// A page map with another page in any place takes nobody's place.
func TestSamePages(t *testing.T) {
	r := newRand(t)
	s := openTest(t, t.TempDir()+"/s", nil)
	images := machine(t, s, r, 300, 2, 0.01)
	tops := map[string]*mapTop{}
	for name := range images {
		root, err := s.readRoot(t.Context(), name, 0)
		if err != nil {
			t.Fatal(err)
		}
		tops[name] = root.top
	}
	g := &gatherer{s: s, packs: newLazyPacks(t.Context(), s.packs)}
	defer g.packs.release()
	g.packs.ids = map[uint64]uint64{}
	if err := g.samePages(t.Context(), tops["m0"], tops["m0"]); err != nil {
		t.Error(err)
	}
	if err := g.samePages(t.Context(), tops["m0"], tops["m1"]); !errors.Is(err, errOtherPages) {
		t.Error(err)
	}
}
