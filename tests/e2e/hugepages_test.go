package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/wss"
)

// TestLinuxRecordHugePages records what a lazy restore reads with and without QEMU's wish for huge pages, and
// with it while others copy the image. The record must be about the same each time, not the 2 MiB around
// each page that the guest touches, and not the image.
func TestLinuxRecordHugePages(t *testing.T) {
	if testing.Short() {
		t.Skip("restores a guest four times: not with -short")
	}
	cli.NeedFUSE(t)
	l := linux(t)
	const ticks = 3
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, l.first, "--name", "linux")
	record := func(small bool, readers ...string) *wss.Set {
		m := cli.Mount(t, store, "--restore=lazy", "--record-window=10m")
		defer m.Unmount()
		cli.OK(t, "ws", "record", "--reset", m.Path("linux"))
		with := *l
		with.config.NoHugePages = small
		g := restoreLinux(t, &with, m, "linux", "a")
		for _, line := range readers {
			cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
			cmd.Dir = m.Path("linux")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
		}
		g.goesOn(t, l.ticks, ticks)
		st := m.Stats(t, "linux")
		cli.OK(t, "ws", "record", "--max-share=100", m.Path("linux"))
		set := readSet(t, writeShow(t, m.Path("linux")))
		t.Logf("without huge pages %v, beside %q: ready after %v, %d pages recorded; %v; %s", small, readers,
			g.opened.Round(time.Millisecond), set.Pages(), st, set.Way)
		if st.Errors != 0 {
			t.Errorf("%d READs failed", st.Errors)
		}
		if len(readers) > 0 {
			g.allRight(t)
		}
		if err := g.Close(); err != nil {
			t.Errorf("QEMU: %v", err)
		}
		return set
	}
	exact := record(true)
	for what, huge := range map[string]*wss.Set{
		"with huge pages": record(false),
		"beside copies": record(false, "cat memory >/dev/null", "sha256sum clones/b/memory",
			"tar cf - memory | wc -c", "head -c 100 clones/b/memory"),
	} {
		both := exact.Overlap(huge)
		t.Logf("%s %d pages are recorded, without %d; recall %.3f, precision %.3f", what, huge.Pages(),
			exact.Pages(), both.OfA(), both.OfB())
		// The guest does as many rounds each time, but a slow host makes other things happen between them.
		if both.OfA() < 0.7 || both.OfB() < 0.6 {
			t.Errorf("%s: recall %.3f, precision %.3f: want 0.7 and 0.6 or more", what, both.OfA(), both.OfB())
		}
	}
}
