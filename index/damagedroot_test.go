package index

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest"
)

// untagged is a blob store that cannot tell a blob from another one that had its name.
type untagged struct{ blob.Store }

func (u untagged) List(ctx context.Context, prefix string) ([]blob.Info, error) {
	list, err := u.Store.List(ctx, prefix)
	for i := range list {
		list[i].Tag = ""
	}
	return list, err
}

// A check of a reader ends, and names the damage once, whether a root is damaged or a pack, and
// whether or not the blobs say which they are.
func TestReaderChecksDamage(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	mem := blobtest.NewMem()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, mem)
	r := rand.New(rand.NewPCG(41, 1))
	mustImport(t, s, "sound", writeSource(t, randomImage(r, 50).bytes(), nil), nil)
	mustImport(t, s, "damaged", writeSource(t, randomImage(r, 60).bytes(), nil), nil)
	numbers, _ := s.packs.numbers()
	last := pack.Name(numbers[len(numbers)-1], 0)
	s.Close()
	for _, blobName := range []string{rootName("damaged", 0), last} {
		sound := blobtest.Get(t, mem, blobName)
		mem.Replace(blobName, sound[:len(sound)/2])
		for _, blobs := range []blob.Store{mem, untagged{mem}} {
			s := openReader(t, dir, blobs)
			rep, err := s.Check(ctx, CheckOptions{})
			if err != nil {
				t.Fatalf("%s cut, check: %v", blobName, err)
			}
			if len(rep.Lost) != 1 || rep.Lost[0].Checkpoint != "damaged" || rep.Checkpoints != 2 {
				t.Errorf("%s cut: %+v", blobName, rep)
			}
			s.Close()
		}
		mem.Replace(blobName, sound)
	}
}

// damagedRecord damages a record of a root, the first one of its kind.
func damagedRecord(t *testing.T, mem *blobtest.Mem, blobName string, kind uint32) {
	t.Helper()
	_, generation, _ := parseRootName(blobName)
	dec, err := pack.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	sound := blobtest.Get(t, mem, blobName)
	for at := range sound {
		b := bytes.Clone(sound)
		b[at] ^= 0x10
		mem.Replace(blobName, b)
		rd, err := openPackBlob(t.Context(), mem, dec, blobName, rootNumber, generation)
		if err != nil {
			continue // its directory
		}
		hit := -1
		_ = rd.Verify(t.Context(), pack.HashKey{}, func(d pack.Damage) {
			if d.Kind == pack.DamagedRecord {
				hit = d.Number
			}
		}, nil)
		found := hit >= 0 && rd.Record(hit).Kind == kind
		rd.Close()
		if found {
			return
		}
	}
	t.Fatalf("there is no record of kind %d", kind)
}

// Damage in a root costs what is damaged: a file, or the working set, and not the memory.
func TestRootWithDamagedRecord(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 2))
	img, set := scattered(r, 900)
	state, text := make([]byte, 5000), bytes.Repeat([]byte("a set\n"), 300)
	for i := range state {
		state[i] = byte(r.Uint32())
	}
	for _, c := range []struct {
		name  string
		kind  uint32
		files map[string][]byte
		lost  []string
	}{
		{"state", kindFile, map[string][]byte{"state": state}, []string{"state"}},
		{"text", kindFile, map[string][]byte{fileWorkingSet: text}, []string{fileWorkingSet}},
		{"set", kindWorkingSet, map[string][]byte{"state": state, fileWorkingSet: text}, []string{fileWorkingSet}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := blobtest.NewMem()
			dir := t.TempDir() + "/s"
			s := openTest(t, dir, mem)
			mustImport(t, s, "a", writeSource(t, img.bytes(), c.files), set)
			s.Close()
			blobName := rootName("a", 0)
			damagedRecord(t, mem, blobName, c.kind)

			s = openTest(t, dir, mem)
			defer s.Close()
			m := openImage(t, s, "a")
			sameImage(t, m, img.bytes())
			sameFeed(t, m, img.bytes())
			m.Close()
			if d := exportDespite(t, s, "a", img.bytes(), c.files, nil); c.kind == kindFile &&
				(d == nil || d.Pages != 0 || !slices.Equal(d.Files, c.lost)) {
				t.Errorf("export: %+v", d)
			}
			for _, repair := range []bool{false, true} {
				rep, err := s.Check(t.Context(), CheckOptions{ReadData: true, Repair: repair})
				if err != nil {
					t.Fatal(err)
				}
				if len(rep.Lost) != 1 || rep.Lost[0].All || rep.Lost[0].Pages != 0 ||
					!slices.Equal(rep.Lost[0].Files, c.lost) || rep.Harmless() {
					t.Errorf("check: %+v", rep)
				}
			}
			if _, err := s.GC(t.Context(), GCOptions{}); err != nil {
				t.Errorf("gc: %v", err)
			}

			before := blobtest.Get(t, mem, blobName)
			_, err := s.SetWorkingSet(t.Context(), "a", text, set)
			if c.name == "state" { // which would be lost for good
				if !isDamage(err) || !bytes.Equal(before, blobtest.Get(t, mem, blobName)) {
					t.Errorf("the root was written again: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkClean(t, s, true)
			if c.files["state"] != nil {
				if got, err := s.ReadFile(t.Context(), "a", "state"); err != nil || !bytes.Equal(got, state) {
					t.Errorf("state: %v", err)
				}
			}
		})
	}
}

// A root that is damaged itself is not written again, by a repacking or to be renamed: what it still has
// would be gone for good. The versions of the others come together all the same.
func TestRootWithDamagedRecordStays(t *testing.T) {
	for _, kind := range []uint32{kindFile, kindWorkingSet} {
		r := rand.New(rand.NewPCG(41, 3))
		mem, dir := blobtest.NewMem(), t.TempDir()+"/s"
		s := openTest(t, dir, mem)
		images := machine(t, s, r, 300, 3, 0.5)
		if _, err := s.SetWorkingSet(t.Context(), "m1", []byte("a set"), []Run{{10, 20}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		blobName := rootName("m1", 1)
		damagedRecord(t, mem, blobName, kind)
		damaged := blobtest.Get(t, mem, blobName)

		s = openTest(t, dir, mem)
		defer s.Close()
		s.limits.gatherPages = 1
		if rep, err := s.Repack(t.Context(), RepackOptions{}); err != nil || rep.GatheredPages == 0 {
			t.Errorf("kind %d: %+v, %v", kind, rep, err)
		}
		if rep, err := s.Repack(t.Context(), RepackOptions{}); err != nil || rep.Repacked > 0 {
			t.Errorf("kind %d, a second time: %+v, %v", kind, rep, err)
		}
		if _, err := s.Rename(t.Context(), "m1", "other"); !isDamage(err) {
			t.Errorf("kind %d: renamed: %v", kind, err)
		}
		if !bytes.Equal(damaged, blobtest.Get(t, mem, blobName)) {
			t.Errorf("kind %d: the root was written again", kind)
		}
		sameImages(t, s, images)
	}
}
