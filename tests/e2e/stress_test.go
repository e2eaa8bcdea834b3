package e2e

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/tests/internal/race"
)

// TestEverythingAtOnce lets clients open, touch and read images in all ways, each page compared
// with its source, while checkpoints come and go, space is given back and images are made cold
// under their feet. Nothing may be wrong, lost or stuck.
func TestEverythingAtOnce(t *testing.T) {
	store, source, _ := withWorkingSet(t, small)
	other := image.Spec{Pages: 4096, Seed: 78}
	otherFile := writeImage(t, other)
	m := cli.Mount(t, store, "--repack-after=1ms")
	rounds := fewer(12, 4)
	if race.Enabled {
		rounds = 4
	}
	stop := make(chan struct{})
	var clients, changes sync.WaitGroup
	fail := make(chan error, 16)
	report := func(err error) {
		select {
		case fail <- err:
		default:
		}
	}
	for n := range 4 {
		c := m.Client(t)
		clients.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 9))
			for i := range rounds {
				if err := useOnce(c, m, rnd, n, i, source); err != nil {
					report(fmt.Errorf("client %d, round %d: %w", n, i, err))
					return
				}
			}
		})
	}
	changes.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			name := fmt.Sprintf("come-and-go-%d", i%3)
			for _, args := range [][]string{{"import", store, otherFile, "--name", name},
				{"ws", "record", "--reset", m.Path("vm")}, {"ls", store}, {"check", store},
				{"rm", store, name}, {"repack", store}, {"gc", store}} {
				if r := cli.Run(t, args...); r.Code != 0 {
					report(fmt.Errorf("%v", r))
					return
				}
			}
		}
	})
	clients.Wait()
	close(stop)
	changes.Wait()
	select {
	case err := <-fail:
		t.Fatal(err)
	default:
	}
	m.Unmount()
	cli.OK(t, "check", store, "--read-data")
	out := filepath.Join(t.TempDir(), "out")
	cli.OK(t, "export", store, "vm", out)
	sameFile(t, filepath.Join(out, "memory"), source)
}

// useOnce opens the image or a clone in one of the ways of a VMM or a backup and compares pages.
func useOnce(c *client.Client, m *cli.Mounted, rnd *rand.Rand, n, round int, source string) error {
	path := m.Path("vm/memory")
	how := client.Map{Private: true, Writable: true, Random: rnd.IntN(2) == 0}
	switch rnd.IntN(3) {
	case 0:
		how = client.Map{} // shared, read-only, with the kernel's read-ahead
	case 1:
		path = m.Path(fmt.Sprintf("vm/clones/c%d-%d/memory", n, round%3))
		how.ReadWrite = true
	}
	first := rnd.Uint64N(small.Pages / 2)
	requests := []client.Request{
		{Op: "open", Path: path, Map: how},
		{Op: "touch", First: first, Count: small.Pages / 4, Order: "random", Seed: rnd.Uint64(), Source: source},
		{Op: "touch", First: first, Count: small.Pages / 2, Source: source},
		{Op: "readall", Length: 4096 << rnd.IntN(7), Source: source},
		{Op: "close"},
	}
	for _, r := range requests {
		a, err := c.Call(r)
		if err != nil {
			return err
		}
		if a.Error != "" || len(a.Wrong)+len(a.Lost) > 0 {
			return fmt.Errorf("%s of %s (%+v): %s, %d pages wrong %v, %d lost %v", r.Op, path, how,
				a.Error, len(a.Wrong), client.First(a.Wrong), len(a.Lost), client.First(a.Lost))
		}
	}
	return nil
}
