package ram

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

const trackedPages = 4096

// trackedFile is a file of known pages, mapped privately, and in the page cache.
func trackedFile(t *testing.T) *Memory {
	t.Helper()
	return mapDir(t, trackedDir(t))
}

// trackedDir has the file.
func trackedDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "memory")
	b := make([]byte, trackedPages*pageSize)
	for i := range b {
		b[i] = byte(i/pageSize) | 1
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mapFileOf maps the memory file in a directory.
func mapFileOf(t testing.TB, dir string) *Memory {
	t.Helper()
	img := new(Image)
	if err := img.AddRoot(filepath.Join(dir, "memory")); err != nil {
		t.Fatal(err)
	}
	m, err := Map(img, Base{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mapDir does so for the time of a test.
func mapDir(t testing.TB, dir string) *Memory {
	t.Helper()
	m := mapFileOf(t, dir)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// touchSome reads 300 pages and writes 100 others and 50 of the same, and returns which.
func touchSome(t *testing.T, m *Memory) (touched, dirty *wss.Bitmap) {
	t.Helper()
	touched, dirty = wss.NewBitmap(trackedPages), wss.NewBitmap(trackedPages)
	r := rand.New(rand.NewPCG(1, 2))
	order := r.Perm(trackedPages)
	b := make([]byte, 8)
	for _, gfn := range order[:300] {
		if _, err := m.ReadAt(b, int64(gfn)*pageSize+16); err != nil {
			t.Fatal(err)
		}
		touched.Set(uint64(gfn))
	}
	for _, gfn := range order[250:400] {
		if _, err := m.WriteAt(b, int64(gfn)*pageSize+16); err != nil {
			t.Fatal(err)
		}
		touched.Set(uint64(gfn))
		dirty.Set(uint64(gfn))
	}
	return touched, dirty
}

func TestTrackerIsExact(t *testing.T) {
	m := trackedFile(t)
	tr := m.tracker
	if !tr.exact() {
		t.Skipf("needs asynchronous userfaultfd write-protection (Linux 6.7): %s", tr.why)
	}
	wantTouched, wantDirty := touchSome(t, m)
	for _, way := range []bool{false, true} {
		tr.pagemap = way
		touched, dirty, err := tr.scan()
		if err != nil {
			t.Fatal(err)
		}
		if !touched.Equal(wantTouched) || !dirty.Equal(wantDirty) {
			t.Errorf("pagemap %v: %d touched, %d dirty, want %d and %d", way, touched.Count(), dirty.Count(),
				wantTouched.Count(), wantDirty.Count())
		}
	}
}

// Without userfaultfd dirty is still exact, and touched has all that was touched.
func TestTrackerWithoutUserfaultfd(t *testing.T) {
	m := trackedFile(t)
	if err := m.tracker.Close(); err != nil {
		t.Fatal(err)
	}
	m.tracker = &tracker{mapping: m.mapping, uffd: -1}
	tr := m.tracker
	wantTouched, wantDirty := touchSome(t, m)
	for _, way := range []bool{false, true} {
		tr.pagemap = way
		touched, dirty, err := tr.scan()
		if err != nil {
			t.Fatal(err)
		}
		if !dirty.Equal(wantDirty) {
			t.Errorf("pagemap %v: %d dirty, want %d", way, dirty.Count(), wantDirty.Count())
		}
		if missing := wantTouched.AndNot(touched).Count(); missing != 0 {
			t.Errorf("pagemap %v: %d touched pages are missing", way, missing)
		}
	}
}

func TestCategory(t *testing.T) {
	tests := []struct {
		entry uint64
		want  uint64
	}{
		{0, pageIsWritten}, // no page: counts as neither, for it is not present
		{pagemapPresent | pagemapFile | pagemapUffdMark, pageIsPresent | pageIsFile},
		{pagemapPresent, pageIsPresent | pageIsWritten},
		{pagemapSwapped | pagemapUffdMark, pageIsSwapped}, // a mark and no page
		{pagemapSwapped, pageIsSwapped | pageIsWritten},
	}
	for _, c := range tests {
		if got := category(c.entry); got != c.want {
			t.Errorf("entry %#x: %#x, want %#x", c.entry, got, c.want)
		}
	}
}

func TestResident(t *testing.T) {
	m := trackedFile(t)
	file := m.pieces[0].src.file
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	cold, err := m.Resident()
	if err != nil {
		t.Fatal(err)
	}
	if cold.Count() != 0 {
		t.Skipf("needs a file system that drops its pages: %d stayed", cold.Count())
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_RANDOM); err != nil { // no read-ahead
		t.Fatal(err)
	}
	want := wss.NewBitmap(trackedPages)
	b := make([]byte, pageSize)
	for _, gfn := range []uint64{0, 1, 7, 4000, trackedPages - 1} {
		if _, err := file.ReadAt(b, int64(gfn)*pageSize); err != nil {
			t.Fatal(err)
		}
		want.Set(gfn)
	}
	got, err := m.Resident()
	if err != nil {
		t.Fatal(err)
	}
	if !got.Equal(want) {
		var s string
		for first, n := range got.Runs() {
			s += fmt.Sprintf(" %d+%d", first, n)
		}
		t.Errorf("resident:%s", s)
	}
}
