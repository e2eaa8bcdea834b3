package vmm

import (
	"errors"
	"path/filepath"
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
	// The guest visits its pages in turn, and so touches them again. The working set is that of some
	// seconds, not of the whole run: most of memory is not in it.
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

// TestScanWithoutTables: without page tables the scan fails with an error that says so.
func TestScanWithoutTables(t *testing.T) {
	m := startReady(t, guest.Spec{Program: "idle"}, 16<<20)
	o := scanOptions{Within: 200 * time.Millisecond, Budget: 0.5}
	set, _, _, err := scanAccess(t.Context(), withoutTables{&scanned{m: m}}, o)
	if !errors.Is(err, scan.ErrNoTables) || set != nil {
		t.Errorf("no tables: %v", err)
	}
}
