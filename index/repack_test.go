package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
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
func threeCheckpoints(t *testing.T, s *Store, r *rand.Rand) map[string][]byte {
	t.Helper()
	s.limits.packPages = 200
	base := likeMemory(r, 700)
	images := map[string][]byte{}
	for i, name := range []string{"a", "b", "c"} {
		img := append(testImage(nil), base...)
		copy(img, likeMemory(r, 300*i))
		images[name] = img.bytes()
		mustImport(t, s, name, writeSource(t, images[name], nil), []Run{{uint64(50 * i), 60}})
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
	for name, want := range images {
		m := openImage(t, s, name)
		sameImage(t, m, want)
		m.Close()
	}
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
			mustImport(t, s, "d", writeSource(t, images["a"], nil), []Run{{400, 30}})
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
	for name, want := range images {
		m := openImage(t, s, name)
		sameImage(t, m, want)
		m.Close()
	}
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
	sameImage(t, old, images["a"])
	if err := reader.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	m := openImage(t, reader, "a")
	defer m.Close()
	sameImage(t, m, images["a"])
	sameImage(t, old, images["a"])
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

// A pack in which a page is damaged stays as it is. The others are repacked, and the error names it; it does
// not come again as long as nothing changes.
func TestRepackDamaged(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	images := threeCheckpoints(t, s, newRand(t))
	bad := s.packsOf(t, "a")[0]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, pack.Name(bad, 0))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good := bytes.Clone(b)
	b[len(b)/3] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, nil)
	memory := NewRepackMemory()
	rep, err := s.Repack(ctx, RepackOptions{Memory: memory})
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || rep.Damaged != 1 || rep.Repacked < 2 || s.generations()[bad] != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if rep, err := s.Repack(ctx, RepackOptions{Memory: memory}); err != nil || rep.Repacked != 0 {
		t.Errorf("again: %+v, %v", rep, err)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked != 1 {
		t.Errorf("after it was mended: %+v", rep)
	}
	for name, want := range images {
		m := openImage(t, s, name)
		sameImage(t, m, want)
		m.Close()
	}
}

// wrongWriter changes one byte of what is written of generations after the first.
type wrongWriter struct{ blob.Store }

func (s wrongWriter) Create(ctx context.Context, name string) (blob.Writer, error) {
	w, err := s.Store.Create(ctx, name)
	if _, g, ok := pack.ParseName(name); err == nil && ok && g > 0 {
		w = &wrongBytes{Writer: w}
	}
	return w, err
}

type wrongBytes struct {
	blob.Writer
	done int
}

func (w *wrongBytes) Write(b []byte) (int, error) {
	if w.done += len(b); w.done > 5000 && w.done-len(b) <= 5000 {
		b = bytes.Clone(b)
		b[5000-(w.done-len(b))] ^= 4
	}
	return w.Writer.Write(b)
}

// A new generation that is not what was to be written never takes the place of the old one.
func TestRepackReadsBack(t *testing.T) {
	s := openTest(t, t.TempDir()+"/s", wrongWriter{blobtest.NewMem()})
	images := threeCheckpoints(t, s, newRand(t))
	before := s.generations()
	rep, err := s.Repack(context.Background(), RepackOptions{})
	if err == nil || rep.Repacked != 0 || rep.Damaged < 3 {
		t.Errorf("%+v, %v", rep, err)
	}
	if after := s.generations(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v became %v", before, after)
	}
	for name, want := range images {
		m := openImage(t, s, name)
		sameImage(t, m, want)
		m.Close()
	}
	checkClean(t, s, true)
}

// killedStore is that of a process which is killed when it reads back a new generation.
type killedStore struct {
	blob.Store
	killed bool
}

func (s *killedStore) Remove(ctx context.Context, name string) error {
	if s.killed {
		return errKilled
	}
	return s.Store.Remove(ctx, name)
}

var errKilled = errors.New("killed")

// A new generation that is not what was to be written does not take the place of the old one either when who
// wrote it was killed before it had read it back. One that is right does.
func TestRepackKilledBeforeItReadsBack(t *testing.T) {
	ctx := context.Background()
	for _, wrong := range []bool{true, false} {
		mem, dir := blobtest.NewMem(), t.TempDir()+"/s"
		s := openTest(t, dir, mem)
		images := threeCheckpoints(t, s, newRand(t))
		before := s.generations()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		k := &killedStore{Store: mem}
		if wrong {
			k.Store = wrongWriter{mem}
		}
		s = openTest(t, dir, k)
		rep, err := s.Repack(ctx, RepackOptions{Wait: func(ctx context.Context) error {
			list, err := mem.List(ctx, "packs/")
			for _, b := range list {
				if _, g, _ := pack.ParseName(b.Name); g > 0 {
					k.killed, err = true, errKilled
				}
			}
			return err
		}})
		if !errors.Is(err, errKilled) || rep.Repacked != 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, dir, mem)
		if after := s.generations(); (fmt.Sprint(after) == fmt.Sprint(before)) != wrong {
			t.Errorf("wrong %v: %v became %v", wrong, before, after)
		}
		if list, err := mem.List(ctx, "packs/"); err != nil || len(list) != len(before) {
			t.Errorf("wrong %v: %v, %v", wrong, list, err)
		}
		for name, want := range images {
			m := openImage(t, s, name)
			sameImage(t, m, want)
			m.Close()
		}
		checkClean(t, s, true)
		if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked == 0 {
			t.Errorf("%+v", rep)
		}
	}
}

// A full disk loses nothing, and leaves nothing.
func TestRepackFullDisk(t *testing.T) {
	ctx := context.Background()
	mem := blobtest.NewMem()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, mem)
	images := threeCheckpoints(t, s, newRand(t))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := mem.List(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, errblob.New(mem, errblob.Full(10_000)))
	rep, err := s.Repack(ctx, RepackOptions{})
	if !errors.Is(err, unix.ENOSPC) || rep.Repacked != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := mem.List(ctx, "")
	if err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v became %v (%v)", before, after, err)
	}
	s = openTest(t, dir, mem)
	if rep := mustRepack(t, s, RepackOptions{}); rep.Repacked == 0 {
		t.Errorf("%+v", rep)
	}
	for name, want := range images {
		m := openImage(t, s, name)
		sameImage(t, m, want)
		m.Close()
	}
}

// One who gives way ends in the middle of a pack when another process wants to write; the pack stays as it
// was, and what the other one does is done.
func TestRepackGivesWay(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	images := threeCheckpoints(t, s, newRand(t))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ctx, dir, OpenOptions{Yield: YieldAll})
	if err != nil {
		t.Fatal(err)
	}
	other := make(chan error, 1)
	begun, stage := false, ""
	memory := NewRepackMemory()
	said := func(p Progress) { stage = p.Stage }
	wait := func(ctx context.Context) error {
		if stage != "repack" {
			return nil
		}
		if !begun {
			begun = true
			go func() { other <- setOf(dir, "a") }()
		}
		<-ctx.Done() // or the test hangs
		return ctx.Err()
	}
	rep, err := s.Repack(ctx, RepackOptions{Memory: memory, Progress: said, Wait: wait})
	if !errors.Is(err, ErrGaveWay) || rep.Repacked != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-other; err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, nil)
	for _, g := range s.generations() {
		if g != 0 {
			t.Errorf("a pack was written again: %v", s.generations())
		}
	}
	if rep := mustRepack(t, s, RepackOptions{Memory: memory}); rep.Repacked < 3 {
		t.Errorf("%+v", rep)
	}
	for name, want := range images {
		m := openImage(t, s, name)
		sameImage(t, m, want)
		m.Close()
	}
	checkClean(t, s, true)
}

// It waits before it looks at a checkpoint or pack, too: of a large store that takes long. In the second call
// there is nothing of this left.
func TestRepackWaitsToLook(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir()+"/s", nil)
	threeCheckpoints(t, s, newRand(t))
	waits := 0
	o := RepackOptions{DryRun: true, Memory: NewRepackMemory(), Wait: func(context.Context) error {
		waits++
		return nil
	}}
	if rep := mustRepack(t, s, o); waits < 3+rep.Packs {
		t.Errorf("it waited %d times for 3 checkpoints and %d packs", waits, rep.Packs)
	}
	waits = 0
	if mustRepack(t, s, o); waits != 0 {
		t.Errorf("it waited %d times for what it knows", waits)
	}
	stop := errors.New("stop")
	o.Memory, o.Wait = NewRepackMemory(), func(context.Context) error { return stop }
	if rep, err := s.Repack(ctx, o); !errors.Is(err, stop) || rep.Packs != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// That a pack is damaged is said by the call that ends, although an earlier one had found it and gave way.
func TestRepackSaysDamageAfterGivingWay(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, nil)
	threeCheckpoints(t, s, newRand(t))
	bad := s.packsOf(t, "a")[0]
	path := filepath.Join(dir, pack.Name(bad, 0))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(b)/2; i++ { // most pages, and no nodes
		b[i] ^= 1
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	memory, waits := NewRepackMemory(), 0
	rep, err := s.Repack(ctx, RepackOptions{Memory: memory, Wait: func(context.Context) error {
		if waits++; waits < 3+3 { // three checkpoints, and the first two packs
			return nil
		}
		return ErrGaveWay
	}})
	if !errors.Is(err, ErrGaveWay) || rep.Packs != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	rep, err = s.Repack(ctx, RepackOptions{Memory: memory})
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || rep.Damaged != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
	mustRepack(t, s, RepackOptions{Memory: memory})
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

// countedNodes counts how many nodes are read.
type countedNodes struct {
	nodes
	read int
}

func (n *countedNodes) node(ref uint64, kind uint32) ([]byte, error) {
	n.read++
	return n.nodes.node(ref, kind)
}

// Runs that overlap are no more to look at than one that has all of them: anybody may have written them.
func TestTiersOfOverlappingRuns(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir()+"/s", nil)
	mustImport(t, s, "a", writeSource(t, likeMemory(newRand(t), 3000).bytes(), nil), nil)
	root, err := s.readRoot(ctx, "a", 0)
	if err != nil {
		t.Fatal(err)
	}
	packs := newLazyPacks(ctx, s.packs)
	defer packs.release()
	// An image of three times the branch that this one has.
	top := *root.top
	top.pages, top.branches = 3*branchPages, slices.Repeat(top.branches[:1], 3)
	root.top = &top
	look := func(runs ...Run) (read int, seen map[uint64]*bitmap) {
		t.Helper()
		n, m := &countedNodes{nodes: packs}, newTierMap()
		if err := m.addRoot(n, root, runs); err != nil {
			t.Fatal(err)
		}
		return n.read, m.seen
	}
	once, want := look(Run{5, 1 << 40})
	var many []Run
	for i := range uint64(200) {
		many = append(many, Run{5 + i%7*100, 1<<40 - i}, Run{2000, i}, Run{5, 1 << 32})
	}
	read, seen := look(many...)
	if read != once || once != 3 {
		t.Errorf("%d nodes are read, of one run %d", read, once)
	}
	if fmt.Sprint(pagesOf(seen)) != fmt.Sprint(pagesOf(want)) || len(want) == 0 {
		t.Errorf("%v, want %v", pagesOf(seen), pagesOf(want))
	}
}

func pagesOf(m map[uint64]*bitmap) map[uint64]bitmap {
	of := map[uint64]bitmap{}
	for n, b := range m {
		of[n] = *b
	}
	return of
}

// setOf sets a working set, without patience.
func setOf(dir, name string) error {
	s, err := Open(context.Background(), dir, OpenOptions{})
	if err != nil {
		return err
	}
	_, err = s.SetWorkingSet(context.Background(), name, []byte("set"), []Run{{10, 40}})
	return errors.Join(err, s.Close())
}

// What is said of a checkpoint without its directories is about right.
func TestPacked(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, t.TempDir()+"/s", nil)
	threeCheckpoints(t, s, newRand(t))
	state := func() (states string, wins int64) {
		t.Helper()
		list, err := s.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := s.Packed(ctx, list)
		if err != nil || len(packed) != len(list) {
			t.Fatalf("%v, %v", packed, err)
		}
		for _, p := range packed {
			states += " " + string(p.State)
			wins += p.Wins
		}
		return states, wins
	}
	if states, wins := state(); states != " no no no" || wins == 0 {
		t.Errorf("%s, %d", states, wins)
	}
	mustRepack(t, s, RepackOptions{Names: []string{"c"}, Own: true})
	if states, _ := state(); states != " no no part" {
		t.Errorf("%s", states)
	}
	mustRepack(t, s, RepackOptions{})
	if states, wins := state(); states != " yes yes yes" || wins != 0 {
		t.Errorf("%s, %d", states, wins)
	}
}
