package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/firecracker"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/tests/internal/race"
	"github.com/thawfs/thaw/tests/qemu"
)

// scratch outlives single tests: what they share lies there.
var scratch string

func TestMain(m *testing.M) {
	client.MainIfChild()
	firecracker.MainIfChild()
	smallPagesMainIfChild()
	restorerMainIfChild()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "thaw-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		scratch = dir
		return cli.Main(m)
	}())
}

// savedLinux is the machine that all tests restore: two checkpoints of one guest.
type savedLinux struct {
	config        qemu.Config
	first, second string // checkpoint directories
	ticks         []qemu.Tick
}

var bootOnce = sync.OnceValues(func() (*savedLinux, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // of a busy host
	defer cancel()
	l := &savedLinux{
		config: qemu.Config{Dir: scratch, PayloadBytes: payload()},
		first:  filepath.Join(scratch, "linux"), second: filepath.Join(scratch, "linux-later"),
	}
	g, err := qemu.Boot(ctx, l.config)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	if l.ticks, err = g.Console.WaitTicks(ctx, 0, 5); err != nil {
		return nil, err
	}
	if err := g.Save(ctx, l.first); err != nil {
		return nil, err
	}
	mark := g.Console.Lines()
	if err := g.Continue(ctx); err != nil {
		return nil, err
	}
	if _, err := g.Console.WaitTicks(ctx, mark, 4); err != nil {
		return nil, err
	}
	if err := g.Save(ctx, l.second); err != nil {
		return nil, err
	}
	return l, errors.Join(g.Close(), os.Remove(filepath.Join(scratch, "ram")))
})

// payload is how many bytes of files the guest has: with -short as many as leave most of them out of
// what it does all the time; 0 is the default.
func payload() int64 {
	if testing.Short() {
		return 40 << 20
	}
	return 0
}

// fewer is the number of rounds: with -short, fewer of them.
func fewer(rounds, short int) int {
	if testing.Short() {
		return short
	}
	return rounds
}

// someOf picks cases: all of them, and with -short only some, other ones in each run.
func someOf[T any](cases []T, short int) []T {
	picked := slices.Clone(cases)
	if testing.Short() {
		rand.Shuffle(len(picked), func(i, j int) { picked[i], picked[j] = picked[j], picked[i] })
		picked = picked[:min(short, len(picked))]
	}
	return picked
}

// linux boots and saves the guest at its first call.
func linux(t *testing.T) *savedLinux {
	t.Helper()
	race.SkipSlow(t)
	if _, err := qemu.Find(); err != nil {
		t.Skip(err)
	}
	l, err := bootOnce()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// cliLimit bounds small programs such as cat.
const cliLimit = 30 * time.Second

// scaled is the number of pages of an image, or a part of it with the race detector.
func scaled(pages uint64) uint64 {
	if race.Enabled {
		return pages / 4
	}
	return pages
}

// small is an image that is quick to import: 32 MiB.
var small = image.Spec{Pages: scaled(8192), Seed: 11}

// writeImage writes an image to a file of its own.
func writeImage(t *testing.T, s image.Spec) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.mem")
	if err := s.Write(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// storeWith makes a store with one checkpoint "vm" of an image; it gives the store and the image.
func storeWith(t *testing.T, s image.Spec) (store, source string) {
	t.Helper()
	source = writeImage(t, s)
	store = filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, source, "--name", "vm")
	return store, source
}

// names lists the checkpoints of a store.
func names(t *testing.T, store string) []string {
	t.Helper()
	var list []string
	for _, c := range cli.JSON[[]struct{ Name string }](t, "ls", store) {
		list = append(list, c.Name)
	}
	return list
}

// sameFile requires that two files have the same bytes.
func sameFile(t *testing.T, got, want string) {
	t.Helper()
	if out, err := cli.Tool(t, time.Minute, "cmp", got, want); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
