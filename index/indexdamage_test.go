package index

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// damageEnv is how many damages TestDamagedIndex tries in each file; "all" is every one there is: ten
// minutes for the small store that was closed, days for the others.
const damageEnv = "THAW_TEST_DAMAGES"

// damage is one thing that happens to a file.
type damage struct {
	file string
	what string // "flip", "cut", "zero"
	at   int64
}

func (d damage) String() string { return fmt.Sprint(d.what, " ", d.file, " at ", d.at) }

const zeroBlock = 512

// do makes the damage in an index directory.
func (d damage) do(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, d.file)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	switch d.what {
	case "flip":
		b[d.at] ^= 1 << (d.at % 8)
	case "cut":
		b = b[:d.at]
	case "zero":
		clear(b[d.at:min(d.at+zeroBlock, int64(len(b)))])
	case "gone":
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// damagesOf returns every damage to every file of an index: each byte flipped, the file cut before each
// byte, each block zeroed, and the file gone. What is zero already beyond the first 64 KiB (Badger's logs
// are large, and empty) is left out.
func damagesOf(t *testing.T, dir string) (all []damage) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, damage{e.Name(), "gone", 0})
		for at := range b {
			if b[at] == 0 && at > 64<<10 {
				continue
			}
			all = append(all, damage{e.Name(), "flip", int64(at)}, damage{e.Name(), "cut", int64(at)})
			if at%zeroBlock == 0 {
				all = append(all, damage{e.Name(), "zero", int64(at)})
			}
		}
	}
	return all
}

// Damage to any byte of the index does not harm the store: the next import works, what is
// there is right, and no panic reaches anybody.
func TestDamagedIndex(t *testing.T) {
	for name, c := range map[string]struct {
		pages   int
		crashed bool
	}{"closed": {60, false}, "killed": {60, true}, "large": {8000, false}} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(94, 1))
			base := randomImage(r, c.pages)
			later, last := base.change(r, 3), base.change(r, 4)
			src := writeSource(t, last.bytes(), nil)
			good := filepath.Join(t.TempDir(), "good")
			s := openKept(t, good)
			mustImport(t, s, "one", writeSource(t, base.bytes(), nil), nil)
			s.Close()
			s = openKept(t, good)
			mustImport(t, s, "two", writeSource(t, later.bytes(), nil), []Run{{4, 9}})
			if c.crashed {
				keeperOf(t, s).kill() // as after a power cut, with logs that were not flushed
				s.hints.db = nil
			}
			s.Close()
			damages := damagesOf(t, filepath.Join(good, indexDirName))
			t.Logf("%d damages", len(damages))
			for _, d := range sampleDamages(t, damages, newRand(t)) {
				tryDamage(t, good, d, src, map[string][]byte{
					"one": base.bytes(), "two": later.bytes(), "last": last.bytes(),
				})
				if t.Failed() {
					t.Fatal(d)
				}
			}
		})
	}
}

func sampleDamages(t *testing.T, all []damage, r *rand.Rand) []damage {
	t.Helper()
	how := os.Getenv(damageEnv)
	if how == "all" {
		return all
	}
	n := fewer(4, 2)
	if how != "" {
		var err error
		if n, err = strconv.Atoi(how); err != nil {
			t.Fatal(err)
		}
	}
	// Files count alike, however large they are.
	files := map[string][]damage{}
	for _, d := range all {
		files[d.file] = append(files[d.file], d)
	}
	var some []damage
	for range n {
		for _, name := range sortedKeys(files) {
			some = append(some, files[name][r.IntN(len(files[name]))])
		}
	}
	return some
}

// tryDamage does one damage to a copy of a store, and uses that.
func tryDamage(t *testing.T, good string, d damage, src Source, want map[string][]byte) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	copyTree(t, good, dir)
	defer os.RemoveAll(dir)
	d.do(t, filepath.Join(dir, indexDirName))
	s, err := Open(context.Background(), dir, OpenOptions{Keeper: testKeeper})
	if err != nil {
		t.Fatalf("%v: %v", d, err)
	}
	defer s.Close()
	s.limits.tailPages = 0
	mustImport(t, s, "last", src, nil)
	for name, img := range want {
		m := openImage(t, s, name)
		sameImage(t, m, img)
		m.Close()
	}
	rep := checkClean(t, s, true)
	if rep.NoIndex != "" {
		t.Errorf("%v: no index: %s", d, rep.NoIndex)
	}
}
