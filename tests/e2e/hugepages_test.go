package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/wss"
)

// TestLinuxRecordHugePages records what a lazy restore reads with and without QEMU's wish for huge pages. The
// record must be about the same, not the 2 MiB around each page that the guest touches.
func TestLinuxRecordHugePages(t *testing.T) {
	cli.NeedFUSE(t)
	l := linux(t)
	const ticks = 4
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, l.first, "--name", "linux")
	record := func(small bool) *wss.Set {
		m := cli.Mount(t, store, "--restore=lazy", "--record-window=60s")
		defer m.Unmount()
		cli.OK(t, "ws", "record", "--reset", m.Path("linux"))
		with := *l
		with.config.NoHugePages = small
		g := restoreLinux(t, &with, m, "linux", "a")
		g.goesOn(t, l.ticks, ticks)
		st := m.Stats(t, "linux")
		cli.OK(t, "ws", "record", "--max-share=100", m.Path("linux"))
		set := readSet(t, writeShow(t, m.Path("linux")))
		t.Logf("without huge pages %v: ready after %v, %d pages recorded; %v", small,
			g.opened.Round(time.Millisecond), set.Pages(), st)
		if st.Errors != 0 {
			t.Errorf("%d READs failed", st.Errors)
		}
		g.allRight(t)
		if err := g.Close(); err != nil {
			t.Errorf("QEMU: %v", err)
		}
		return set
	}
	exact, huge := record(true), record(false)
	both := exact.Overlap(huge)
	t.Logf("with huge pages %d pages are recorded, without %d; recall %.3f, precision %.3f", huge.Pages(),
		exact.Pages(), both.OfA(), both.OfB())
	if both.OfA() < 0.8 || both.OfB() < 0.8 {
		t.Errorf("recall %.3f, precision %.3f: want 0.8 or more of each", both.OfA(), both.OfB())
	}
}
