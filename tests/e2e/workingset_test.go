package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
)

// writeWorkingSet writes a working-set file with runs of (first gfn, count).
func writeWorkingSet(t testing.TB, path string, pages uint64, runs [][2]uint64) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "thaw-working-set 1\npages %d\nwindow 10s\nway test\n"+
		"created 2026-01-02T03:04:05Z\n\n", pages)
	for i, r := range runs {
		fmt.Fprintf(&b, "%d %d %d read\n", r[0], r[1], i*1000)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRecord: what a lazy client touches becomes the working set, page for page and in order, and
// the next restore brings exactly that.
func TestRecord(t *testing.T) {
	store, source := storeWith(t, small)
	last := small.Pages - 1
	touched := []uint64{last / 2, 17, 18, 19, last, 64, 222, 0, last - 500, last - 499}

	m := cli.Mount(t, store, "--restore=lazy")
	c := m.Client(t)
	cli.Fails(t, "bad-working-set", "ws", "record", m.Path("vm")) // nothing was read yet
	cli.OK(t, "ws", "record", "--reset", m.Path("vm"))
	c.Open(t, m.Path("vm/clones/a/memory"), client.Map{ReadWrite: true, Private: true})
	c.Right(t, client.Request{GFNs: touched, Source: source})
	cli.OK(t, "ws", "record", m.Path("vm"))
	c.Close(t)
	text, err := os.ReadFile(writeShow(t, m.Path("vm")))
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	_, body, _ := strings.Cut(string(text), "\n\n")
	for line := range strings.Lines(body) {
		var gfn, count uint64
		if _, err := fmt.Sscan(line, &gfn, &count); err != nil {
			t.Fatalf("line %q of the working set: %v", line, err)
		}
		for i := range count {
			got = append(got, gfn+i)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(touched) {
		t.Errorf("recorded %v, touched %v", got, touched)
	}
	m.Unmount()

	m = cli.Mount(t, store)
	c = m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{GFNs: touched, Source: source})
	s := m.Stats(t, "vm")
	if s.PrefetchedPages != uint64(len(touched)) || s.Demanded() != 0 {
		t.Errorf("want %d pages prefetched and no demand reads: %v", len(touched), s)
	}
	c.Right(t, client.Request{Count: small.Pages, Order: "random", Source: source})
	// Pages were pushed: this is no cold image, and its reads are no working set.
	cli.Fails(t, "not-cold", "ws", "record", m.Path("vm"))
	cli.OK(t, "ws", "record", "--reset", m.Path("vm"))
}

// writeShow writes what `thaw ws show` prints to a file; it must be a working-set file itself.
func writeShow(t *testing.T, path string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "ws")
	text, err := cli.Tool(t, cliLimit, "cat", filepath.Join(path, "working-set"))
	if err != nil {
		t.Fatal(err)
	}
	cli.OK(t, "ws", "show", path)
	if err := os.WriteFile(out, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestHostileWorkingSets: a working set that does not fit is refused and nothing changes.
func TestHostileWorkingSets(t *testing.T) {
	store, _ := storeWith(t, small)
	dir := t.TempDir()
	good := fmt.Sprintf("thaw-working-set 1\npages %d\nwindow 10s\nway x\n"+
		"created 2026-01-02T03:04:05Z\n\n", small.Pages)
	end := func(first, count uint64) string { return fmt.Sprintf("%d %d 0 read\n", first, count) }
	for name, text := range map[string]string{
		"empty file":       "",
		"another magic":    "other 1\n\n1 1 0 read\n",
		"another version":  strings.Replace(good, "set 1", "set 99", 1) + "1 1 0 read\n",
		"another size":     strings.Replace(good, fmt.Sprint(small.Pages), "777", 1) + "1 1 0 read\n",
		"page out of it":   good + end(small.Pages, 1),
		"run out of it":    good + end(small.Pages-10, 11),
		"count overflows":  good + "1 18446744073709551615 0 read\n",
		"negative":         good + "-1 1 0 read\n",
		"empty run":        good + "1 0 0 read\n",
		"no numbers":       good + "one two three read\n",
		"binary":           good + "\x00\xff\x00\n",
		"only a header":    good,
		"endless line":     good + strings.Repeat("1", 1<<20) + "\n",
		"no end of header": "thaw-working-set 1\npages 2048\n",
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			path := filepath.Join(dir, "ws")
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			cli.Fails(t, "bad-working-set", "ws", "import", store, "vm", path)
		})
	}
	cli.OK(t, "check", store, "--read-data")
}
