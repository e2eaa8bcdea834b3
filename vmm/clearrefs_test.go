package vmm

import (
	"os"
	"testing"
	"time"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/wss/scan"
)

// byClearRefs is a machine whose translations are dropped in the way that is open to other processes, too:
// see package wss/process.
type byClearRefs struct{ *scanned }

func (byClearRefs) Flushes() []scan.Flush {
	return []scan.Flush{{Name: "clear_refs", Do: func() error {
		return os.WriteFile("/proc/self/clear_refs", []byte("4"), 0)
	}}}
}

// TestScanByClearRefs: KVM drops what it derived from the guest's tables when soft-dirty bits are cleared,
// so the bits of these tables come back, of the same pages as after the flushes of our own.
func TestScanByClearRefs(t *testing.T) {
	m := startReady(t, guest.Spec{Program: "random:20"}, 32<<20)
	o := scanOptions{Within: 2 * time.Second, Budget: 0.5}
	own, _, _, err := scanAccess(t.Context(), &scanned{m: m}, o)
	if err != nil {
		t.Fatal(err)
	}
	others, _, _, err := scanAccess(t.Context(), byClearRefs{&scanned{m: m}}, o)
	if err != nil {
		t.Fatal(err)
	}
	both := own.Overlap(others)
	t.Logf("%s: %d pages; %s: %d pages", own.Way, both.A, others.Way, both.B)
	if both.OfA() < 0.9 || both.OfB() < 0.9 {
		t.Errorf("of the pages %.3f and %.3f are the same", both.OfA(), both.OfB())
	}
}
