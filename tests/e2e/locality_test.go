package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/locality"
	"github.com/thawfs/thaw/tests/qemu"
)

var keepSets = flag.String("locality.keep", "",
	"directory in which TestLinuxLocality leaves the image and what two restores of it touched")

// TestLinuxLocality records what a real Linux touches after its restore, in order, and replays that
// against its checkpoint as it is laid out without knowing it, by the guest's page tables, and with
// a record of another run. Most of what this guest touches is its page cache, which lies well in
// physical memory and in no page table; so what virtual order is worth shows little here
// (tests/perf has a load of programs), but it must not be worth less. A record must make one
// request of five pages, and four fifths of what it brings must be of use.
func TestLinuxLocality(t *testing.T) {
	cli.NeedFUSE(t)
	l := *linux(t)
	tools, err := qemu.Find()
	if err != nil {
		t.Skip(err)
	}
	l.config.QEMU = smallPages(t, tools.QEMU)
	const ticks = 5
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	cli.OK(t, "import", store, l.first, "--name", "virtual")
	var records [2][]uint64
	for i := range records {
		t.Run(fmt.Sprint("record", i), func(t *testing.T) {
			m := cli.Mount(t, store, "--restore=lazy", "--record-window=60s")
			cli.OK(t, "ws", "record", "--reset", m.Path("virtual"))
			g := restoreLinux(t, &l, m, "virtual", "a")
			g.goesOn(t, l.ticks, ticks)
			cli.OK(t, "ws", "record", m.Path("virtual"))
			text := writeShow(t, m.Path("virtual"))
			records[i] = touchesIn(t, text)
			copyFile(t, filepath.Join(dir, fmt.Sprint("set", i)), text)
			if *keepSets != "" {
				copyFile(t, filepath.Join(*keepSets, fmt.Sprint("set", i)), text)
				copyFile(t, filepath.Join(*keepSets, "memory"), filepath.Join(l.first, "memory"))
			}
		})
	}
	if t.Failed() {
		return
	}
	traced := filepath.Join(dir, "checkpoint")
	if err := os.Mkdir(traced, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"memory", "state"} {
		if err := os.Link(filepath.Join(l.first, name), filepath.Join(traced, name)); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, filepath.Join(traced, "working-set"), filepath.Join(dir, "set0"))
	third, second := filepath.Join(dir, "third"), filepath.Join(dir, "second")
	cli.OK(t, "import", third, traced, "--name", "trace")

	touches := records[1]
	single := locality.Replay(touches, locality.Single)
	physical := locality.Replay(touches, locality.Physical)
	cli.OK(t, "import", second, l.first, "--name", "numbers", "--layout=physical")
	numbers := replayStore(t, second, "numbers", touches)
	virtual := replayStore(t, store, "virtual", touches)
	trace := replayStore(t, third, "trace", touches)
	t.Logf("single pages:    %v", single)
	t.Logf("physical 64 KiB: %v", physical)
	t.Logf("by page number:  %v", numbers)
	t.Logf("virtual order:   %v", virtual)
	t.Logf("another trace:   %v", trace)
	if virtual.Requests*3 > single.Requests || virtual.Share() < numbers.Share()-0.05 {
		t.Error("blocks in virtual order are worth less than those by page number")
	}
	if trace.PerPage() > 0.2 || trace.Share() < 0.8 {
		t.Error("blocks by a trace: want 0.2 requests a page or less, and 80 % used")
	}
}

// touchesIn lists the pages of a working-set file in its order.
func touchesIn(t *testing.T, path string) (gfns []uint64) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(text), "\n\n")
	for line := range strings.Lines(body) {
		var gfn, count uint64
		if _, err := fmt.Sscan(line, &gfn, &count); err != nil {
			t.Fatalf("line %q of the working set: %v", line, err)
		}
		for i := range count {
			gfns = append(gfns, gfn+i)
		}
	}
	return gfns
}

// replayStore replays touches against the blocks of a checkpoint.
func replayStore(t *testing.T, store, name string, touches []uint64) locality.Figures {
	t.Helper()
	s, err := index.Open(context.Background(), store, index.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := s.OpenImage(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	return locality.Replay(touches, locality.Blocks(m))
}

func copyFile(t *testing.T, dst, src string) {
	t.Helper()
	b, err := os.ReadFile(src)
	if err == nil {
		err = os.WriteFile(dst, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
