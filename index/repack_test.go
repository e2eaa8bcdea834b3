package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/thawfs/thaw/index/pack"
)

// likeMemory is an image of pages that compress, as those of most machines; seeds that fillPage makes noise
// of are left out.
func likeMemory(r *rand.Rand, pages int) testImage {
	m := make(testImage, pages)
	for i := range m {
		for m[i] = 7; m[i]%7 == 0; {
			m[i] = 1000 + r.Uint64()>>8
		}
	}
	return m
}

func mustRepack(t *testing.T, s *Store, o RepackOptions) RepackReport {
	t.Helper()
	rep, err := s.Repack(context.Background(), o)
	if err != nil {
		t.Fatalf("%+v, %v", rep, err)
	}
	return rep
}

// tiersOf says how each page of a checkpoint is stored.
func tiersOf(t *testing.T, s *Store, name string) map[uint64]pack.Tier {
	t.Helper()
	m := openImage(t, s, name)
	defer m.Close()
	tiers := map[uint64]pack.Tier{}
	m.pages.each(func(gfn, _ uint64) {
		ref := pack.Ref(m.pages.ref(gfn))
		p, done, err := s.packs.use(context.Background(), uint64(ref)>>24, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		_, clustered := p.ClusterOf(ref.Slot())
		switch {
		case clustered:
			tiers[gfn] = pack.TierCold
		case p.Quick(ref.Slot()):
			tiers[gfn] = pack.TierHot
		default:
			tiers[gfn] = pack.TierWarm
		}
	})
	return tiers
}

// tiered checks how pages are stored: those of the runs hot and warm, and all others cold.
func tiered(t *testing.T, s *Store, name string, hot, warm []Run) {
	t.Helper()
	want := map[uint64]pack.Tier{}
	eachPage(warm, func(gfn uint64) { want[gfn] = pack.TierWarm })
	eachPage(hot, func(gfn uint64) { want[gfn] = pack.TierHot })
	wrong := 0
	for gfn, is := range tiersOf(t, s, name) {
		w, used := want[gfn]
		if !used {
			w = pack.TierCold
		}
		// What is quicker than it must be need not move for that.
		if is != w && !(w == pack.TierWarm && is == pack.TierHot) {
			wrong++
			if wrong < 5 {
				t.Errorf("page %d is stored as %d, want %d", gfn, is, w)
			}
		}
	}
	if wrong > 4 {
		t.Errorf("and %d more", wrong-4)
	}
}

// Pages are stored by how they are used, over all checkpoints, and move when that changes. Blocks are of 16
// pages, so that those around a used page are near to it.
func TestRepackTiers(t *testing.T) {
	ctx := context.Background()
	r := newRand(t)
	s := openTest(t, t.TempDir()+"/s", nil)
	img := likeMemory(r, 2000)
	want := img.bytes()
	mustImport(t, s, "a", writeSource(t, want, nil), nil)
	rep := mustRepack(t, s, RepackOptions{})
	if rep.Repacked != 1 || rep.ColdPages != 2000 || rep.FreedBytes() <= 0 {
		t.Errorf("nothing is used: %+v", rep)
	}
	tiered(t, s, "a", nil, nil)

	// Another checkpoint uses pages of the same pack.
	mustImport(t, s, "b", writeSource(t, want, nil), nil)
	set := func(name string, runs ...Run) {
		t.Helper()
		var text []byte
		if len(runs) > 0 {
			text = []byte("set")
		}
		if _, err := s.SetWorkingSet(ctx, name, text, runs); err != nil {
			t.Fatal(err)
		}
		if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 1 {
			t.Errorf("the set of %s is another one: %+v", name, rep)
		}
		if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 0 {
			t.Errorf("there is nothing to do: %+v", rep)
		}
	}
	set("b", Run{100, 30}, Run{1000, 1})
	tiered(t, s, "a", []Run{{100, 30}, {1000, 1}}, []Run{{96, 48}, {992, 16}})
	set("a", Run{100, 10}, Run{500, 200})
	tiered(t, s, "a", []Run{{100, 30}, {1000, 1}, {500, 200}}, []Run{{96, 48}, {992, 16}, {496, 208}})
	if err := s.Remove(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	set("a")
	tiered(t, s, "a", nil, nil)

	// What machines asked for is not cold, wherever it lies.
	seen := func(Checkpoint) []Run { return []Run{{1999, 1}, {700, 20}, {5000, 3}, {0, 4}} }
	mustRepack(t, s, RepackOptions{Seen: seen})
	tiered(t, s, "a", nil, []Run{{1999, 1}, {700, 20}, {0, 4}})
	m := openImage(t, s, "a")
	defer m.Close()
	sameImage(t, m, want)
	checkClean(t, s, true)
}

// A page that does not compress stays where it is read quickest.
func TestRepackLeavesNoise(t *testing.T) {
	s := openTest(t, t.TempDir()+"/s", nil)
	img := make(testImage, 300)
	for i := range img {
		img[i] = 7 * uint64(i+1)
	}
	mustImport(t, s, "a", writeSource(t, img.bytes(), nil), nil)
	if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 0 || rep.Packs == 0 {
		t.Errorf("%+v", rep)
	}
}

// threeCheckpoints has packs of 200 pages that checkpoints share, and such that they do not.
func threeCheckpoints(t *testing.T, s *Store, r *rand.Rand) map[string]testImage {
	t.Helper()
	s.limits.packPages = 200
	base := likeMemory(r, 700)
	images := map[string]testImage{}
	for i, name := range []string{"a", "b", "c"} {
		img := append(testImage(nil), base...)
		copy(img, likeMemory(r, 300*i))
		images[name] = img
		mustImport(t, s, name, writeSource(t, img.bytes(), nil), []Run{{uint64(50 * i), 60}})
	}
	return images
}

func (s *Store) packsOf(t *testing.T, name string) []uint64 {
	t.Helper()
	e := s.entry(name)
	if e == nil {
		t.Fatalf("no %s", name)
	}
	var packs []uint64
	for _, n := range e.packs {
		if n != e.segment {
			packs = append(packs, n)
		}
	}
	return packs
}

func (s *Store) generations() map[uint64]uint32 {
	g := map[uint64]uint32{}
	numbers, _ := s.packs.numbers()
	for _, n := range numbers {
		info, _ := s.packs.info(n)
		g[n] = info.generation
	}
	return g
}

// With names only their packs are repacked, and with Own only those that are theirs alone.
func TestRepackNames(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir()+"/s", nil)
	images := threeCheckpoints(t, s, newRand(t))
	if _, err := s.Repack(ctx, RepackOptions{Names: []string{"a", "none"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a checkpoint that is not there: %v", err)
	}
	mine := func(names ...string) map[uint64]bool {
		is := map[uint64]bool{}
		for _, name := range names {
			for _, n := range s.packsOf(t, name) {
				is[n] = true
			}
		}
		return is
	}
	repacked := func(what string, o RepackOptions, may func(n uint64) bool) {
		t.Helper()
		before := s.generations()
		if dry := mustRepack(t, s, RepackOptions{Names: o.Names, Own: o.Own, DryRun: true}); dry.Repacked == 0 {
			t.Errorf("%s: %+v", what, dry)
		}
		mustRepack(t, s, o)
		n := 0
		for number, g := range s.generations() {
			if g != before[number] {
				n++
				if !may(number) {
					t.Errorf("%s: pack %d was repacked", what, number)
				}
			}
		}
		if n == 0 {
			t.Errorf("%s: nothing was repacked", what)
		}
	}
	others := mine("a", "b")
	repacked("c's own", RepackOptions{Names: []string{"c"}, Own: true},
		func(n uint64) bool { return !others[n] })
	c := mine("c")
	repacked("c's", RepackOptions{Names: []string{"c"}}, func(n uint64) bool { return c[n] })
	repacked("all", RepackOptions{}, func(n uint64) bool { return !c[n] })
	sameImages(t, s, images)
	checkClean(t, s, true)
}

// A dry run changes nothing, and says what a run does.
func TestRepackDryRun(t *testing.T) {
	s := openTest(t, t.TempDir()+"/s", nil)
	threeCheckpoints(t, s, newRand(t))
	before := blobFiles(t, s.Dir())
	would := mustRepack(t, s, RepackOptions{DryRun: true})
	if after := blobFiles(t, s.Dir()); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v became %v", before, after)
	}
	did := mustRepack(t, s, RepackOptions{})
	would.BytesAfter, did.BytesAfter, would.DryRun = 0, 0, false
	if would != did || did.Repacked < 3 || did.HotPages == 0 || did.ColdPages == 0 {
		t.Errorf("did %+v, would %+v", did, would)
	}
}

// One pack at a time, by one Store after another, with imports and removals in between, comes to the same as
// all at once.
func TestRepackSessions(t *testing.T) {
	ctx := context.Background()
	r := newRand(t)
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	images := threeCheckpoints(t, s, r)
	memory := NewRepackMemory()
	for session := 0; ; session++ {
		rep, err := s.Repack(ctx, RepackOptions{Memory: memory, Most: 1})
		if err != nil || rep.Repacked > 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
		switch session {
		case 1: // pages that were dead are used again, and others by another set
			mustImport(t, s, "d", writeSource(t, images["a"].bytes(), nil), []Run{{400, 30}})
			images["d"] = images["a"]
		case 2:
			if err := s.Remove(ctx, "b"); err != nil {
				t.Fatal(err)
			}
			delete(images, "b")
		case 3:
			if _, err := s.SetWorkingSet(ctx, "a", []byte("set"), []Run{{300, 99}}); err != nil {
				t.Fatal(err)
			}
		}
		if session > 3 && rep.Left == 0 {
			break
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, dir, nil)
		s.limits.packPages = 200
	}
	if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 0 {
		t.Errorf("something is left: %+v", rep)
	}
	sameImages(t, s, images)
	checkClean(t, s, true)
}

// What a reader has open it reads on, and what it opens later is the new generation.
func TestRepackUnderReaders(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	images := threeCheckpoints(t, s, newRand(t))
	reader, err := Open(ctx, dir, OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	old := openImage(t, reader, "a")
	defer old.Close()
	mustRepack(t, s, RepackOptions{})
	sameImage(t, old, images["a"].bytes())
	if err := reader.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	m := openImage(t, reader, "a")
	defer m.Close()
	sameImage(t, m, images["a"].bytes())
	sameImage(t, old, images["a"].bytes())
	// The last open image that has the old files lets go of them.
	for _, f := range blobFiles(t, dir) {
		if strings.HasSuffix(f, ".0.pack") && strings.HasPrefix(f, "packs/") {
			n, _, _ := pack.ParseName(f)
			if sum, err := s.summary(ctx, n); err != nil || sum.Slots > 0 && s.generations()[n] != 0 {
				t.Errorf("%s is there still (%v)", f, err)
			}
		}
	}
}

// What the walk forgets the audit finds, and nothing is dropped.
func TestRepackAudit(t *testing.T) {
	ctx := context.Background()
	s := sharingStore(t)
	before := blobFiles(t, s.Dir())
	memory := NewRepackMemory()
	if _, err := s.Repack(ctx, RepackOptions{Memory: memory, DryRun: true}); err != nil {
		t.Fatal(err)
	}
	// A page of a that the memory does not know, in a pack from which something is dropped.
	m := openImage(t, s, "a")
	forgotten := 0
	m.pages.each(func(gfn, _ uint64) {
		ref := pack.Ref(m.pages.ref(gfn))
		if w := memory.weighed[uint64(ref)>>24]; forgotten == 0 && w.urgency > 0 && w.drops {
			b := memory.live.packs[uint64(ref)>>24].slots
			b[ref.Slot()/64] &^= 1 << (ref.Slot() % 64)
			forgotten++
		}
	})
	m.Close()
	if forgotten == 0 {
		t.Fatal("nothing would be dropped")
	}
	rep, err := s.Repack(ctx, RepackOptions{Memory: memory})
	var found *LivenessError
	if !errors.As(err, &found) || rep.Repacked != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if after := blobFiles(t, s.Dir()); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v became %v", before, after)
	}
}

// Dead pages are dropped.
func TestRepackDropsDead(t *testing.T) {
	s := sharingStore(t)
	rep := mustRepack(t, s, RepackOptions{})
	if rep.DroppedPages == 0 || rep.FreedBytes() <= 0 {
		t.Errorf("%+v", rep)
	}
	checkClean(t, s, true)
	after, err := s.GC(context.Background(), GCOptions{})
	if err != nil || after.DroppedPages != 0 {
		t.Errorf("%+v, %v", after, err)
	}
}

// A checkpoint that takes the place of another one of the same name is not taken for it, although both were
// written by this Store, and their roots are as large.
func TestRepackMemoryOfOneStore(t *testing.T) {
	ctx := context.Background()
	r := newRand(t)
	s := openTest(t, t.TempDir()+"/s", nil)
	memory := NewRepackMemory()
	alike := false
	var before rootInfo
	for n := 0; n < 100 && !alike; n++ { // as a rule some three are enough
		img := likeMemory(r, 50).bytes()
		mustImport(t, s, "a", writeSource(t, img, nil), nil)
		root := s.entry("a").root
		alike, before = root == before, root
		mustRepack(t, s, RepackOptions{Memory: memory})
		m := openImage(t, s, "a")
		sameImage(t, m, img)
		m.Close()
		if err := s.Remove(ctx, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if !alike {
		t.Error("no two roots are alike")
	}
}
