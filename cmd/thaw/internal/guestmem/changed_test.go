package guestmem

import (
	"bytes"
	"os"
	"testing"
)

// A file that has lost all its data since it was opened has only holes, which are never read: that is an
// error, and no memory of zeros, and no diff without a page.
func TestFileThatIsEmptied(t *testing.T) {
	empty := func(path string, size int64) {
		t.Helper()
		for _, n := range []int64{0, size} {
			if err := os.Truncate(path, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	core := writeCore(whole(1, 1<<20), coreOptions{})
	path := writeFile(t, "core", core)
	s := mustOpen(t, path, Options{})
	empty(path, int64(len(core)))
	if runs, err := s.Memory.Extents(); err == nil {
		t.Errorf("an emptied file has %d runs of pages, and no error", len(runs))
	}
	diff := writeFile(t, "diff", append(bytes.Repeat([]byte{1}, PageSize), make([]byte, PageSize)...))
	f, err := openFile(diff)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	empty(diff, 2*PageSize)
	if err := new(Saved).openDiff(f); err == nil {
		t.Error("an emptied file is a diff of no pages")
	}
}
