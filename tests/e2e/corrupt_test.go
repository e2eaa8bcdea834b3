package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
)

// packFiles lists the packs of a store, largest first.
func packFiles(t *testing.T, store string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(store, "packs", "*.pack"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no packs in %s: %v", store, err)
	}
	size := func(path string) int64 {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	for i := range files {
		for j := i + 1; j < len(files); j++ {
			if size(files[j]) > size(files[i]) {
				files[i], files[j] = files[j], files[i]
			}
		}
	}
	return files
}

// flip damages one byte of a file.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// TestCorruptPack damages one byte among the pages of a pack. The pages of that unit are EIO and
// SIGBUS, all others have the right bytes, by mapping and by read(2); check finds it.
func TestCorruptPack(t *testing.T) {
	for _, policy := range []string{"lazy", "eager"} {
		t.Run(policy, func(t *testing.T) {
			spec := image.Spec{Pages: small.Pages, Seed: 21}
			store, source := storeWith(t, spec)
			pack := packFiles(t, store)[0]
			st, err := os.Stat(pack)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, pack, st.Size()/3)

			m := cli.Mount(t, store, "--restore="+policy)
			c := m.Client(t)
			a := c.Do(t, client.Request{Op: "open", Path: m.Path("vm/memory"),
				Map: client.Map{Private: true, Random: true}})
			if a.Error != "" {
				t.Fatalf("the image cannot be opened: %s", a.Error)
			}
			a = c.Must(t, client.Request{Op: "touch", Count: spec.Pages, Order: "random", Source: source})
			lost := onlyRightOrLost(t, "mapped", a)
			if lost == 0 || lost > 64 {
				t.Errorf("%d pages are lost, want those of one unit", lost)
			}
			b := c.Must(t, client.Request{Op: "readall", Length: 128 << 10, Source: source})
			if n := onlyRightOrLost(t, "read", b); n != lost {
				t.Errorf("%d pages are lost by read(2), %d by mapping", n, lost)
			}
			if len(a.Lost) > 0 {
				one := c.Do(t, client.Request{Op: "pread", Offset: int64(a.Lost[0]) * 4096, Length: 4096})
				if one.Errno != "EIO" {
					t.Errorf("read of a lost page: %q (%s), want EIO", one.Errno, one.Error)
				}
			}
			if s := m.Stats(t, "vm"); s.Errors == 0 {
				t.Errorf("stats.json counts no errors: %v", s)
			}
			c.Close(t)
			m.Unmount()
			cli.Fails(t, "corrupt", "check", store, "--read-data")
			cli.Fails(t, "damaged-checkpoint", "export", store, "vm", filepath.Join(t.TempDir(), "out"))
		})
	}
}

// TestCorruptAnywhere damages one byte of any file of the store, at random places, one at a time.
// Whatever happens then (the mount is refused, pages are lost, or nothing), no page is wrong.
func TestCorruptAnywhere(t *testing.T) {
	cli.NeedFUSE(t)
	spec := image.Spec{Pages: 1024, Seed: 31}
	good, source := storeWith(t, spec)
	var files []string
	for _, dir := range []string{"packs", "checkpoints", "."} {
		found, err := filepath.Glob(filepath.Join(good, dir, "*.*"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	first := rnd.IntN(len(files))
	for i := first; i < first+fewer(12, 5); i++ {
		file, err := filepath.Rel(good, files[i%len(files)])
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(good, file))
		if err != nil || st.Size() == 0 {
			continue
		}
		// Half of the places near the end, where directories and footers are.
		off := rnd.Int64N(st.Size())
		if i%2 == 1 {
			off = st.Size() - 1 - rnd.Int64N(min(st.Size(), 512))
		}
		t.Run(fmt.Sprintf("%s+%d", filepath.Base(file), off), func(t *testing.T) {
			store := filepath.Join(t.TempDir(), "store")
			if err := os.CopyFS(store, os.DirFS(good)); err != nil {
				t.Fatal(err)
			}
			flip(t, filepath.Join(store, file), off)
			usable(t, store, spec, source)
		})
	}
}

// usable mounts a damaged store, if that is possible, and requires that nothing wrong comes out.
func usable(t *testing.T, store string, spec image.Spec, source string) {
	t.Helper()
	if r := cli.Run(t, "ls", store); r.Code != 0 || !strings.Contains(r.Stdout, "vm") {
		t.Logf("the store is refused, or does not show the checkpoint: %s", strings.TrimSpace(r.Stderr))
		if r.Code == 0 && cli.Run(t, "check", store).Code == 0 {
			t.Errorf("the checkpoint is gone, and check finds nothing wrong")
		}
		return
	}
	m := cli.Mount(t, store)
	c := m.Client(t)
	a := c.Do(t, client.Request{Op: "open", Path: m.Path("vm/memory"),
		Map: client.Map{Private: true, Random: true}})
	if a.Error != "" {
		t.Logf("open: %s", a.Error)
		return
	}
	if a.Size != spec.Bytes() {
		t.Fatalf("memory has %d bytes, want %d", a.Size, spec.Bytes())
	}
	a = c.Must(t, client.Request{Op: "touch", Count: spec.Pages, Source: source})
	t.Logf("%d pages lost", onlyRightOrLost(t, "mapped", a))
	c.Close(t)
}

// TestCorruptSegment damages the working set's segment: a second copy. Every page is still right.
func TestCorruptSegment(t *testing.T) {
	store, source := storeWith(t, small)
	before := packFiles(t, store)
	ws := filepath.Join(t.TempDir(), "ws")
	writeWorkingSet(t, ws, small.Pages, [][2]uint64{{100, 700}, {1500, 500}})
	cli.OK(t, "ws", "import", store, "vm", ws)
	after := packFiles(t, store)
	for _, p := range after {
		if !contains(before, p) {
			st, err := os.Stat(p)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, p, st.Size()/2)
		}
	}
	if len(after) == len(before) {
		t.Fatal("setting a working set made no segment")
	}
	m := cli.Mount(t, store)
	c := m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages, Source: source})
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
