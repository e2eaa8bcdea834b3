package qemu

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/thawfs/thaw/wss/pagetable"
)

// checkPageTables looks for the address spaces of a guest that was just saved, and stands still.
// What the processor has in CR3 must be among them, and it must not be alone: several processes
// run. What they map must be most of their memory, found in a fraction of the time that an import
// takes.
func checkPageTables(ctx context.Context, t *testing.T, g *Guest, dir string) {
	t.Helper()
	var registers string
	args := map[string]any{"command-line": "info registers"}
	if err := g.QMP.Run(ctx, "human-monitor-command", args, &registers); err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`CR3=([0-9a-f]+)`).FindStringSubmatch(registers)
	if found == nil {
		t.Fatalf("no CR3 in\n%s", registers)
	}
	cr3, err := strconv.ParseUint(found[1], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	space, err := pagetable.NewSpace(f, uint64(st.Size())/4096, nil)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := space.Find(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	spaces, err := space.Order(ctx, roots)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	programs, mapped := 0, uint64(0)
	for _, a := range spaces {
		n := uint64(0)
		for _, r := range a.Runs {
			n += r.Count
		}
		if !a.Kernel && n > 20 { // more than tables
			programs++
			mapped += n
		}
	}
	t.Logf("%d roots, %d programs with %d pages, in %v", len(roots), programs, mapped, took)
	if !slices.Contains(roots, pagetable.Root{GPA: cr3 &^ 0xfff, Levels: 4}) {
		t.Errorf("CR3 is %#x, found were %x", cr3, roots)
	}
	if programs < 2 || mapped < 1000 {
		t.Errorf("%d programs with %d pages: the shell and its awk have more", programs, mapped)
	}
}
