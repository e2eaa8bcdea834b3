package qemu

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/race"
)

var keep = flag.String("qemu.keep", "",
	"directory in which TestSaveRestore leaves linux.mem, linux.state and linux2.mem, linux2.state")

// needTools skips where the host cannot run a guest.
func needTools(t *testing.T) {
	t.Helper()
	var missing *MissingError
	if _, err := Find(); errors.As(err, &missing) {
		t.Skip(missing)
	}
}

// TestSaveRestore boots a guest, saves it twice, restores it from the first checkpoint, and sees
// it go on where it was, with its data right and its clock ticking.
func TestSaveRestore(t *testing.T) {
	race.SkipSlow(t)
	needTools(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	dir := t.TempDir()
	c, work := Config{Dir: dir}, 6 // ticks
	if testing.Short() {
		c.PayloadBytes, work = 40<<20, 3
	}
	if testing.Verbose() {
		c.Log = os.Stderr
	}
	g, err := Boot(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ticks, err := g.Console.WaitTicks(ctx, 0, work)
	if err != nil {
		t.Fatal(err)
	}
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	if err := g.Save(ctx, first); err != nil {
		t.Fatal(err)
	}
	checkPageTables(ctx, t, g, first)
	mark := g.Console.Lines()
	if err := g.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	// Two ticks may have been on their way; the others are seconds of work.
	if _, err := g.Console.WaitTicks(ctx, mark, work); err != nil {
		t.Fatal(err)
	}
	if err := g.Save(ctx, second); err != nil {
		t.Fatal(err)
	}
	g.Close()
	keepFiles(t, first, second)

	r, err := Restore(ctx, c, filepath.Join(first, "memory"), filepath.Join(first, "state"),
		RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Continue(ctx); err != nil {
		t.Fatal(err)
	}
	after, err := r.Console.WaitTicks(ctx, 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := after[0].Round, ticks[len(ticks)-1].Round+1; got < want {
		t.Errorf("the restored guest goes on with round %d, want %d or more", got, want)
	}
	if after[2].Uptime <= after[0].Uptime {
		t.Errorf("the guest's clock stands still: %v", after)
	}
	if err := r.Command("all"); err != nil {
		t.Fatal(err)
	}
	bad, files, err := r.Console.WaitAll(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if bad != 0 || files == 0 {
		t.Errorf("%d of %d files are wrong after the restore", bad, files)
	}
}

// keepFiles copies the checkpoints to the directory that was asked for.
func keepFiles(t *testing.T, first, second string) {
	if *keep == "" {
		return
	}
	for from, to := range map[string]string{
		first + "/memory": "linux.mem", first + "/state": "linux.state",
		second + "/memory": "linux2.mem", second + "/state": "linux2.state",
	} {
		to = filepath.Join(*keep, to)
		if err := errors.Join(CopySparse(to+".tmp", from), os.Rename(to+".tmp", to)); err != nil {
			t.Fatal(err)
		}
	}
}
