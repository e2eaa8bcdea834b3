package vmm

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/wss"
)

// TestScan estimates the working set of a guest before its checkpoint and compares it with what the
// guest touches afterwards.
func TestScan(t *testing.T) {
	m := startReady(t, guest.Spec{Program: "random:20"}, 32<<20)
	dir := filepath.Join(t.TempDir(), "cp")
	stats, err := m.CheckpointWith(t.Context(), dir, CheckpointOptions{
		Scan: ScanOptions{Within: 4 * time.Second, Budget: 0.1}, Trace: 2 * time.Second, Stop: true})
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
