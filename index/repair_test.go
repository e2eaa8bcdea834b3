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

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// repairStore is a ruinStore that was exported while it was sound: dir has store, one and two.
func repairStore(t *testing.T, r *rand.Rand) (dir string, images map[string]testImage) {
	t.Helper()
	dir = t.TempDir()
	images = ruinStore(t, filepath.Join(dir, "store"), r)
	s := openTest(t, filepath.Join(dir, "store"), nil)
	defer s.Close()
	for name := range images {
		if err := s.Export(t.Context(), name, filepath.Join(dir, name), ExportOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return dir, images
}

func repairIt(t *testing.T, s *Store, from ...string) CheckReport {
	t.Helper()
	rep, err := s.Check(t.Context(), CheckOptions{Repair: true, From: from})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func sameImages(t *testing.T, s *Store, images map[string]testImage) {
	t.Helper()
	for name, img := range images {
		m := openImage(t, s, name)
		sameImage(t, m, img.bytes())
		sameWorkingSet(t, m, img.bytes(), m.WorkingSet())
		m.Close()
	}
}

// What is damaged, or was dropped, comes back from exports: all of it.
func TestRepairFromExports(t *testing.T) {
	r := rand.New(rand.NewPCG(87, 1))
	sound, images := repairStore(t, r)
	s := openTest(t, filepath.Join(sound, "store"), nil)
	all, key := ruins(s.key), s.key
	s.Close()
	all = append(all, ruin{"pages in each other's place", func(t *testing.T, _ *rand.Rand, dir string) {
		rewritePack(t, dir, shiftPages)
	}})
	all = slices.DeleteFunc(all, func(how ruin) bool {
		return how.name == "records of another kind" || how.name == "flipped"
	})
	all = append(all, ruin{"flipped in the pages", func(t *testing.T, r *rand.Rand, dir string) {
		changeFile(t, filepath.Join(dir, filepath.FromSlash(ruinedPack)), func(b []byte) []byte {
			for range 30 {
				b[r.IntN(len(b)*9/10)] ^= byte(1 + r.IntN(255))
			}
			return b
		})
	}})
	mended := 0
	for i, how := range append(all, all...) {
		t.Run(how.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			copyTree(t, filepath.Join(sound, "store"), dir)
			if i >= len(all) {
				coolPack(t, dir, key)
			}
			how.do(t, r, dir)
			s := openTest(t, dir, nil)
			defer s.Close()
			before, err := s.Check(t.Context(), CheckOptions{ReadData: true})
			if err != nil || before.OK() {
				t.Fatalf("%+v, %v", before, err)
			}
			rep := repairIt(t, s, filepath.Join(sound, "one"), filepath.Join(sound, "two"))
			switch how.name {
			case "cut", "missing", "another pack", "fewer slots":
				// The hashes are gone: nobody can say which page is which.
				if rep.OK() || len(rep.Lost) == 0 || rep.Lost[0].Pages == 0 {
					t.Fatalf("%+v", rep)
				}
				return
			}
			if !rep.OK() || len(rep.Lost) > 0 || len(rep.Repaired) == 0 {
				t.Fatalf("%+v", rep)
			}
			mended++
			sameImages(t, s, images)
			checkClean(t, s, true)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, dir, nil)
			defer s.Close()
			checkClean(t, s, true)
			sameImages(t, s, images)
		})
	}
	if mended < 8 {
		t.Errorf("%d mended", mended)
	}
}

// dropSlots makes some slots of the pack dead, as the collection did that lost them.
func dropSlots(t *testing.T, dir string, key pack.HashKey, drop func(slot uint32) bool) {
	t.Helper()
	rewritePack(t, dir, func(old *pack.Reader, w *pack.Writer) error {
		enc, err := pack.NewEncoder(pack.ProfileDefault)
		if err != nil {
			return err
		}
		return pack.Rewrite(t.Context(), old, w, enc, key,
			pack.Keep{Slot: func(slot uint32) bool { return !drop(slot) }})
	})
}

// Pages come back from the segment, and from another pack.
func TestRepairFromStore(t *testing.T) {
	r := rand.New(rand.NewPCG(88, 1))
	sound, images := repairStore(t, r)
	third := func(slot uint32) bool { return slot%3 == 0 }
	for _, how := range []string{"segment", "pack"} {
		t.Run(how, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			copyTree(t, filepath.Join(sound, "store"), dir)
			s := openTest(t, dir, nil)
			key := s.key
			if how == "pack" {
				// Without the segments there is nothing else to take it from.
				for name := range images {
					if _, err := s.SetWorkingSet(t.Context(), name, nil, nil); err != nil {
						t.Fatal(err)
					}
				}
			}
			s.Close()
			copyOf, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(ruinedPack)))
			if err != nil {
				t.Fatal(err)
			}
			dropSlots(t, dir, key, third)
			s = openTest(t, dir, nil)
			defer s.Close()
			if how == "pack" {
				addCopy(t, s, copyOf)
			}
			rep := repairIt(t, s)
			if how == "pack" {
				if !rep.OK() {
					t.Fatalf("%+v", rep)
				}
				sameImages(t, s, images)
				return
			}
			// All of one is in a segment; what only two has beyond its own is lost.
			for _, l := range rep.Lost {
				if l.Checkpoint == "one" {
					t.Errorf("%+v", l)
				}
			}
			if len(rep.Repaired) == 0 || rep.Repaired[0].Pages == 0 {
				t.Errorf("%+v", rep)
			}
			sameImages(t, s, map[string]testImage{"one": images["one"]})
		})
	}
}

// addCopy puts the pages of a pack into one with another number.
func addCopy(t *testing.T, s *Store, b []byte) {
	t.Helper()
	mem := blobtest.NewMem()
	mem.Replace("x", b)
	obj, err := mem.Open(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	old, err := pack.Open(obj, "x", s.dec)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	const number = 77
	bw, err := s.blobs.Create(t.Context(), pack.Name(number, 0))
	if err != nil {
		t.Fatal(err)
	}
	w, err := pack.NewWriter(bw, number, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := copyPack(old, w, old.Slots(), func(k uint32) uint32 { return k }); err != nil {
		t.Fatal(err)
	}
	size, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	s.packs.addWritten(w, size)
}

// Other pages than those that are missing change nothing.
func TestRepairFromNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(89, 1))
	sound, images := repairStore(t, r)
	dir := filepath.Join(sound, "store")
	s := openTest(t, dir, nil)
	for name := range images {
		if _, err := s.SetWorkingSet(t.Context(), name, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	dropSlots(t, dir, s.key, func(slot uint32) bool { return slot%5 == 0 })
	other := filepath.Join(t.TempDir(), "memory")
	writeSparse(t, other, randomImage(r, 1500).bytes())
	s = openTest(t, dir, nil)
	defer s.Close()
	before := blobFiles(t, dir)
	rep := repairIt(t, s, other)
	if rep.OK() || len(rep.Repaired) > 0 || len(rep.Lost) != 2 {
		t.Errorf("%+v", rep)
	}
	if after := blobFiles(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v became %v", before, after)
	}
	for name, img := range images {
		m := openImage(t, s, name)
		if sameDespite(t, m, img.bytes()) == 0 {
			t.Errorf("%s is whole", name)
		}
		m.Close()
	}
	if _, err := s.Check(t.Context(), CheckOptions{Repair: true, From: []string{dir}}); err == nil {
		t.Error("a directory without a memory is no export")
	}
}

// Damage that costs no checkpoint anything is told from damage that does, and mended.
func TestHarmlessDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(91, 1))
	sound, images := repairStore(t, r)
	s := openTest(t, filepath.Join(sound, "store"), nil)
	segment := pack.Name(s.cat.m["one"].segment, 0)
	s.Close()
	file := func(dir, name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	for _, c := range []struct {
		name string
		do   func(dir string)
		cost bool // it is not harmless, though no page is lost
	}{
		{"header", func(dir string) {
			changeFile(t, file(dir, ruinedPack), func(b []byte) []byte { b[13] ^= 1; return b })
		}, false},
		{"hashes", func(dir string) {
			changeFile(t, file(dir, ruinedPack), func(b []byte) []byte {
				b[len(b)-200] ^= 1
				b[len(b)-3000] ^= 9
				return b
			})
		}, true},
		{"frame", func(dir string) {
			changeFile(t, file(dir, segment), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, false},
		{"segment cut", func(dir string) {
			changeFile(t, file(dir, segment), func(b []byte) []byte { return b[:len(b)/2] })
		}, false},
		{"segment gone", func(dir string) {
			if err := os.Remove(file(dir, segment)); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"frames of another set", func(dir string) { otherFrames(t, dir, segment) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			copyTree(t, filepath.Join(sound, "store"), dir)
			c.do(dir)
			s := openTest(t, dir, nil)
			defer s.Close()
			rep, err := s.Check(t.Context(), CheckOptions{ReadData: true})
			if err != nil || rep.OK() || rep.Harmless() == c.cost || len(rep.Lost) > 0 || rep.Covers == "" {
				t.Fatalf("%+v, %v", rep, err)
			}
			sameImages(t, s, images)
			if rep := repairIt(t, s); !rep.OK() || len(rep.Repaired) != 1 {
				t.Fatalf("%+v", rep)
			}
			sameImages(t, s, images)
			checkClean(t, s, true)
		})
	}
	t.Run("unreferenced slot", func(t *testing.T) {
		dir := filepath.Join(sound, "store")
		s := openTest(t, dir, nil)
		if err := s.Remove(t.Context(), "one"); err != nil {
			t.Fatal(err)
		}
		m := openImage(t, s, "two")
		needed := bitmap{}
		m.pages.each(func(_, place uint64) {
			if m.root.top.packs[place>>24] == 1 {
				needed.add(pack.Ref(place).Slot())
			}
		})
		m.Close()
		s.Close()
		damageSlots(t, dir, func(slot uint32) bool { return !needed.has(slot) && slot%4 == 0 })
		s = openTest(t, dir, nil)
		defer s.Close()
		rep, err := s.Check(t.Context(), CheckOptions{ReadData: true})
		if err != nil || rep.OK() || !rep.Harmless() {
			t.Errorf("%+v, %v", rep, err)
		}
		sameImages(t, s, map[string]testImage{"two": images["two"]})
	})
}

// damageSlots flips a bit of some pages in the pack.
func damageSlots(t *testing.T, dir string, which func(slot uint32) bool) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(ruinedPack))
	changeFile(t, path, func(b []byte) []byte {
		mem := blobtest.NewMem()
		mem.Replace("x", bytes.Clone(b))
		obj, err := mem.Open(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		dec, err := pack.NewDecoder()
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		r, err := pack.Open(obj, "x", dec)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for slot := range uint32(r.Slots()) {
			if off, pages := r.Unit(slot); which(slot) && pages == 1 {
				b[off+5] ^= 0x10
			}
		}
		return b
	})
}

// otherFrames gives a segment the frames of other pages, with right checksums.
func otherFrames(t *testing.T, dir, name string) {
	t.Helper()
	blobs, err := blob.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	number, _, _ := pack.ParseName(name)
	obj, err := blobs.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := pack.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	old, err := pack.Open(obj, name, dec)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := blobs.Remove(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	bw, err := blobs.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := pack.NewWriter(bw, number, 0)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := pack.NewEncoder(pack.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	w.Continue(old)
	var f pack.EncodedFrame
	page := bytes.Repeat([]byte("wrong"), PageSize)[:PageSize]
	if err := enc.EncodeFrame(&f, []uint64{3, 4, 9}, [][]byte{page, page, page}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.AppendFrame(&f); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
}

// A repair that ends at any moment leaves no less than there was.
func TestRepairCrashes(t *testing.T) {
	r := rand.New(rand.NewPCG(92, 1))
	sound, images := repairStore(t, r)
	dir := filepath.Join(sound, "store")
	s := openTest(t, dir, nil)
	key := s.key
	s.Close()
	dropSlots(t, dir, key, func(slot uint32) bool { return slot%9 == 0 })
	from := []string{filepath.Join(sound, "one"), filepath.Join(sound, "two")}
	run := func(dir string, plan errblob.Plan) (int, error) {
		var broken *errblob.Store
		s, err := Open(context.Background(), dir, OpenOptions{
			Wrap: func(_ context.Context, b blob.Store) (blob.Store, error) {
				broken = errblob.New(b, nil)
				return broken, nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		opened := broken.Operations()
		if plan != nil {
			broken.SetPlan(func(c errblob.Call) errblob.Fault {
				c.N -= opened
				return plan(c)
			})
		}
		_, err = s.Check(context.Background(), CheckOptions{Repair: true, From: from})
		return broken.Operations() - opened, err
	}
	copyStore := func() string {
		to := filepath.Join(t.TempDir(), "store")
		copyTree(t, dir, to)
		return to
	}
	total, err := run(copyStore(), nil)
	if err != nil {
		t.Fatal(err)
	}
	step := max(total/6, 1)
	if testing.Short() {
		step = max(total/3, 1)
	}
	for n := 1 + newRand(t).IntN(step); n <= total; n += step {
		for _, after := range []bool{false, true} {
			to := copyStore()
			if _, err := run(to, errblob.Crash(n, after)); !errors.Is(err, errblob.ErrCrashed) {
				t.Fatalf("operation %d: %v", n, err)
			}
			s := openTest(t, to, nil)
			for name, img := range images {
				m := openImage(t, s, name)
				sameDespite(t, m, img.bytes())
				m.Close()
			}
			if rep := repairIt(t, s, from...); !rep.OK() {
				t.Fatalf("operation %d: %+v", n, rep)
			}
			sameImages(t, s, images)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A pack full of damaged pages is one problem, which says how many there are and where.
func TestManyDamagedPages(t *testing.T) {
	r := rand.New(rand.NewPCG(92, 1))
	sound, _ := repairStore(t, r)
	dir := filepath.Join(sound, "store")
	rewritePack(t, dir, shiftPages)
	s := openTest(t, dir, nil)
	defer s.Close()
	rep, err := s.Check(t.Context(), CheckOptions{ReadData: true})
	if err != nil {
		t.Fatal(err)
	}
	var of []Problem
	for _, p := range rep.Problems {
		if p.Parts > 0 {
			of = append(of, p)
		}
	}
	if len(of) != 1 || of[0].Parts < 100 || of[0].Harmless || len(rep.Lost) == 0 {
		t.Fatalf("%d problems with pages: %+v, lost %v", len(of), of, rep.Lost)
	}
	named := uint64(0)
	for i, run := range of[0].First {
		named += run.Count
		if i > 0 && run.Number <= of[0].First[i-1].Number+of[0].First[i-1].Count {
			t.Errorf("runs %v", of[0].First)
		}
	}
	if len(of[0].First) > namedRuns || named == 0 || named > of[0].Parts || len(of[0].What) > 500 ||
		!strings.Contains(of[0].What, fmt.Sprintf("%d slots are damaged", of[0].Parts)) {
		t.Errorf("%+v", of[0])
	}
	t.Log(of[0].What)
}

// Damage of one kind in a pack is harmless only if all of it is.
func TestDamagesAreJudgedTogether(t *testing.T) {
	for needed, want := range map[int]bool{-1: true, 3: false, 200: false, 7: true} {
		c := newChecker(t.Context(), &Store{}, CheckOptions{})
		for _, n := range []int{3, 4, 5, 64, 200} {
			c.found(9, "p", pack.Damage{Kind: pack.DamagedSlot, Number: n, Err: errBadPage})
		}
		if needed >= 0 {
			c.damage(9).needed.add(uint32(needed))
		}
		c.judge()
		if len(c.report.Problems) != 1 || c.report.Problems[0].Harmless != want {
			t.Errorf("page %d is needed: %+v", needed, c.report.Problems)
		}
		const what = "5 slots are damaged (3-5, 64, 200), the first: damaged"
		if got := c.report.Problems[0].What; got != what {
			t.Errorf("%q, want %q", got, what)
		}
	}
}

// A check names the damaged pages of a pack by their numbers, in whatever order they lie in clusters.
func TestCheckNamesClusters(t *testing.T) {
	dir, _, _ := highLatencyImage(t)
	s := openTest(t, dir, nil)
	retier(t, s, allPacks, allCold)
	p, done, err := s.packs.use(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	name, slots, clusters := p.Name(), uint64(p.Slots()), p.Clusters()
	at := map[int64]bool{} // of units, and of clusters
	for slot := range uint32(slots) {
		off, _ := p.Unit(slot)
		at[off] = true
	}
	done()
	s.Close()
	if clusters < 3 || uint64(len(at)) == uint64(clusters) {
		t.Fatalf("%d clusters, and units beside them: %d", clusters, len(at)-clusters)
	}
	changeFile(t, filepath.Join(dir, filepath.FromSlash(name)), func(b []byte) []byte {
		for off := range at {
			b[off+2] ^= 1
		}
		return b
	})
	s = openTest(t, dir, nil)
	defer s.Close()
	rep, err := s.Check(t.Context(), CheckOptions{ReadData: true})
	want := []PartsRun{{Number: 0, Count: slots}}
	if err != nil || len(rep.Problems) != 1 || !slices.Equal(rep.Problems[0].First, want) {
		t.Errorf("%+v, %v, want pages %v of one pack", rep.Problems, err, want)
	}
}
