package vmm

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/scan"
)

// TestScan estimates the working set of a guest before its checkpoint and compares it with what the
// guest touches afterwards.
func TestScan(t *testing.T) {
	m := startReady(t, guest.Spec{Program: "random:20"}, 32<<20)
	dir := filepath.Join(t.TempDir(), "cp")
	stats, err := m.checkpoint(t.Context(), dir, checkpointOptions{
		Scan: scanOptions{Within: 4 * time.Second, Budget: 0.1}, Trace: 2 * time.Second, Stop: true})
	if err != nil {
		t.Fatal(err)
	}
	sets := readSet(t, dir)
	t.Logf("%s", stats.Scan.Way)
	access := sets.Only(wss.SourceAccess)
	if access.Pages() != stats.Scan.Pages || access.Pages() == 0 {
		t.Errorf("%d pages in the record, %d scanned", access.Pages(), stats.Scan.Pages)
	}
	if stats.Trace == nil {
		t.Skip(stats.Note)
	}
	o := access.Overlap(sets.Only(wss.SourceTrace))
	t.Logf("access %d, trace %d, both %d", o.A, o.B, o.Both)
	// The guest goes round its pages; what it touched once it touches again. The working set is that
	// of some seconds and not of all time: most of memory is not in it.
	if o.OfB() < 0.9 {
		t.Errorf("recall %.3f", o.OfB())
	}
	if o.A > 32<<20/pageSize/2 {
		t.Errorf("%d pages of %d", o.A, 32<<20/pageSize)
	}
}

// withoutTables is a guest whose page tables are of no use.
type withoutTables struct{ *scanned }

func (withoutTables) CPUs() ([]scan.CPU, error) { return make([]scan.CPU, 1), nil }

// TestScanIdle: where a guest's page tables tell nothing, the host is asked. It is not this one, which
// may not tell, but a file in which the test clears the marks of some pages again and again, as the
// kernel does of those that are touched.
func TestScanIdle(t *testing.T) {
	m := startReady(t, guest.Spec{Program: "idle"}, 16<<20)
	o := scanOptions{Within: 200 * time.Millisecond, Budget: 0.5}
	o.idle = scan.IdleOptions{Bitmap: filepath.Join(t.TempDir(), "bitmap")}
	_, _, _, err := m.scanGuest(t.Context(), withoutTables{&scanned{m: m}}, o)
	if !errors.Is(err, scan.ErrNoTables) || !errors.Is(err, scan.ErrNoIdleTracking) {
		t.Errorf("neither tables nor marks: %v", err)
	}
	bitmap, err := os.Create(o.idle.Bitmap)
	if err != nil {
		t.Fatal(err)
	}
	defer bitmap.Close()
	if err := bitmap.Truncate(1 << 32); err != nil { // a hole, for frames below 128 TiB
		t.Fatal(err)
	}
	word, want := frames(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	var kernel sync.WaitGroup
	kernel.Go(func() {
		for ctx.Err() == nil {
			if _, err := bitmap.WriteAt(make([]byte, 8), int64(word*8)); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond) // now and then they do stay marked
		}
	})
	set, spaces, stats, err := m.scanGuest(t.Context(), withoutTables{&scanned{m: m}}, o)
	cancel()
	kernel.Wait()
	if err != nil {
		t.Fatal(err)
	}
	// The kernel may move a page elsewhere, and then it counts as touched.
	got := set.Bitmap()
	if missing, more := want.AndNot(got).Count(), got.AndNot(want).Count(); missing > 0 || more > 64 {
		t.Errorf("%d of %d pages are missing, %d others are there", missing, want.Count(), more)
	}
	for _, part := range []string{"idle page tracking of the host", scan.ErrNoTables.Error()} {
		if !strings.Contains(set.Way, part) || stats.Way != set.Way {
			t.Errorf("way %q", set.Way)
		}
	}
	if spaces.Complete || len(spaces.Roots) > 0 {
		t.Errorf("address spaces %+v", spaces)
	}
}

// frames picks a word of the kernel's bitmap and gives the pages of the machine that it is for.
func frames(t *testing.T, m *Machine) (word uint64, pages *wss.Bitmap) {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const present = 1 << 63
	entries := make([]uint64, m.mem.Size()/pageSize)
	at := io.NewSectionReader(f, int64(m.mem.Address()/pageSize*8), int64(len(entries))*8)
	if err := binary.Read(at, binary.NativeEndian, entries); err != nil {
		t.Fatal(err)
	}
	pages = wss.NewBitmap(uint64(len(entries)))
	for gfn, e := range entries {
		frame := e & (1<<55 - 1)
		switch {
		case e&present == 0:
			continue
		case frame == 0:
			t.Skip("frame numbers need CAP_SYS_ADMIN")
		case word == 0:
			word = frame / 64
		}
		if frame/64 == word {
			pages.Set(uint64(gfn))
		}
	}
	return word, pages
}
