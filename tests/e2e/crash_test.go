package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/tests/internal/proc"
	"github.com/thawfs/thaw/tests/internal/race"
)

// smallDisk mounts a tmpfs of so many bytes.
func smallDisk(t *testing.T, bytes int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("needs a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount the small disk: %v", err)
		}
	})
	return dir
}

// TestFullDisk: an import that does not fit fails as such, at once and through a mount's server,
// and leaves the store as it was; with space again, it succeeds.
func TestFullDisk(t *testing.T) {
	race.SkipSlow(t)
	disk := smallDisk(t, 96<<20)
	store := filepath.Join(disk, "store")
	first, big := image.Spec{Pages: 4096, Seed: 1}, image.Spec{Pages: 64 << 10, Seed: 2, Full: true}
	firstFile, bigFile := writeImage(t, first), writeImage(t, big)
	cli.OK(t, "import", store, firstFile, "--name", "first")
	filler := filepath.Join(disk, "filler")
	fill(t, disk, filler, 24<<20)

	cli.Fails(t, "no-space", "import", store, bigFile, "--name", "big")
	if got := names(t, store); !slices.Equal(got, []string{"first"}) {
		t.Errorf("after the failed import the store lists %q", got)
	}
	cli.OK(t, "check", store, "--read-data")

	m := cli.Mount(t, store)
	c := m.Client(t)
	c.Open(t, m.Path("first/memory"), client.Map{Private: true})
	cli.Fails(t, "no-space", "import", store, bigFile, "--name", "big")
	c.Right(t, client.Request{Count: first.Pages, Source: firstFile})
	if a := c.Do(t, client.Request{Op: "open", Path: m.Path("big/memory")}); a.Errno != "ENOENT" {
		t.Errorf("half a checkpoint is on the mount: %q", a.Errno)
	}
	c.Close(t)
	m.Unmount()

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	cli.OK(t, "gc", store)
	other := image.Spec{Pages: 16 << 10, Seed: 2}
	otherFile := writeImage(t, other)
	cli.OK(t, "import", store, otherFile, "--name", "other")
	exportEquals(t, store, "other", otherFile)
	exportEquals(t, store, "first", firstFile)
	// An export onto the full disk leaves nothing behind.
	fill(t, disk, filler, 4<<20)
	out := filepath.Join(disk, "out")
	cli.Fails(t, "no-space", "export", store, "other", out)
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half an export was left: %v", err)
	}
	cli.OK(t, "check", store, "--read-data")
}

// fill leaves about so many bytes of a disk free.
func fill(t *testing.T, disk, path string, free int64) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	size := int64(st.Bavail)*st.Bsize - free
	if size <= 0 {
		t.Fatalf("the disk is full already")
	}
	if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
}

func exportEquals(t *testing.T, store, name, source string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	cli.OK(t, "export", store, name, out)
	sameFile(t, filepath.Join(out, "memory"), source)
	if err := os.RemoveAll(out); err != nil {
		t.Fatal(err)
	}
}

// TestKilledImports kills imports at random instants. After each, the store opens, shows what was
// there before and nothing half done, and is sound; in the end it takes the image as if nothing
// had happened, and gc leaves no more than a store that was never disturbed has.
func TestKilledImports(t *testing.T) {
	base := image.Spec{Pages: 2048, Seed: 51}
	spec := image.Spec{Pages: scaled(32 << 10), Seed: 52}
	store, _ := storeWith(t, base)
	source := writeImage(t, spec)
	clean := filepath.Join(t.TempDir(), "clean")
	start := time.Now()
	cli.OK(t, "import", clean, source, "--name", "x")
	took := time.Since(start)

	rounds, survived := fewer(12, 4), 0
	for i := range rounds {
		name := fmt.Sprintf("x%d", i)
		cmd := cli.Command("import", store, source, "--name", name)
		p, err := proc.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(took)))) // the instant of the kill, at random
		if err := p.Kill(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		done := cmd.ProcessState.ExitCode() == 0
		list := names(t, store)
		if !slices.Contains(list, "vm") || done && !slices.Contains(list, name) {
			t.Fatalf("after kill %d (import done: %v) the store lists %q", i, done, list)
		}
		if slices.Contains(list, name) {
			survived++
			exportEquals(t, store, name, source)
			cli.OK(t, "rm", store, name)
		}
		if i%4 == 3 {
			cli.OK(t, "check", store, "--read-data")
		}
	}
	t.Logf("%d of %d killed imports were complete", survived, rounds)
	cli.OK(t, "import", store, source, "--name", "x")
	exportEquals(t, store, "x", source)
	cli.OK(t, "gc", store)
	cli.OK(t, "check", store, "--read-data")
	if got, want := packBytes(t, store), packBytes(t, clean); got > want*13/10 {
		t.Errorf("after gc the packs have %d bytes; without the kills %d", got, want)
	}
}

func packBytes(t *testing.T, store string) int64 {
	t.Helper()
	var sum int64
	for _, p := range packFiles(t, store) {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		sum += st.Size()
	}
	return sum
}

// TestIndexIsRebuilt: without the Badger directory, and with a damaged one, everything comes back
// from the packs.
func TestIndexIsRebuilt(t *testing.T) {
	store, source := storeWith(t, small)
	index := filepath.Join(store, "index")
	if err := os.RemoveAll(index); err != nil {
		t.Fatal(err)
	}
	cli.OK(t, "check", store, "--rebuild-index", "--read-data")
	exportEquals(t, store, "vm", source)
	// What is known is known again: the same image costs no page.
	type reply struct {
		Stats struct {
			NewPages uint64 `json:"new_pages"`
		}
	}
	if r := cli.JSON[reply](t, "import", store, source, "--name", "again"); r.Stats.NewPages != 0 {
		t.Errorf("%d pages were stored again after the index was rebuilt", r.Stats.NewPages)
	}
	files, err := filepath.Glob(filepath.Join(index, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no index files: %v", err)
	}
	for _, f := range files {
		if err := os.WriteFile(f, []byte("garbage"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cli.OK(t, "check", store, "--rebuild-index", "--read-data")
	exportEquals(t, store, "vm", source)
	exportEquals(t, store, "again", source)
}

// TestRemoveAndGC: what was removed gives its space back, and what shared pages with it stays.
func TestRemoveAndGC(t *testing.T) {
	store, source := storeWith(t, small)
	before := packBytes(t, store)
	other := image.Spec{Pages: 16 << 10, Seed: 61}
	otherFile := writeImage(t, other)
	cli.OK(t, "import", store, otherFile, "--name", "other")
	cli.OK(t, "import", store, source, "--name", "copy")
	m := cli.Mount(t, store)
	c := m.Client(t)
	c.Open(t, m.Path("other/memory"), client.Map{Private: true})
	cli.Fails(t, "busy", "rm", store, "other")
	c.Open(t, m.Path("copy/memory"), client.Map{Private: true})
	cli.OK(t, "rm", store, "other")
	cli.OK(t, "rm", store, "vm")
	cli.OK(t, "gc", store) // while a machine runs
	c.Right(t, client.Request{Count: small.Pages, Order: "random", Source: source})
	if a := c.Do(t, client.Request{Op: "open", Path: m.Path("vm/memory")}); a.Errno != "ENOENT" {
		t.Errorf("a removed checkpoint is still there: %q", a.Errno)
	}
	m.Unmount()
	cli.OK(t, "gc", store)
	exportEquals(t, store, "copy", source)
	cli.OK(t, "check", store, "--read-data")
	if after := packBytes(t, store); after > before*12/10 {
		t.Errorf("after rm and gc the packs have %d bytes, %d before the import", after, before)
	}
}
