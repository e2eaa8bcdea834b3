package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
)

// TestDaemonKilled: of the death of its server a client notices nothing but the time, and the mount ends
// as any
// other.
func TestDaemonKilled(t *testing.T) {
	store, source := storeWith(t, small)
	h := cli.MountHeld(t, store, "--restore=lazy")
	c := h.Client(t)
	c.Open(t, h.Path("vm/clones/a/memory"), client.Map{ReadWrite: true, Private: true, Random: true})
	quarter := small.Pages / 4
	for round := range uint64(4) {
		pid := h.Pid()
		c.Right(t, client.Request{First: round * quarter, Count: quarter, Source: source})
		if !h.KillServer() {
			t.Fatalf("there is no server to kill\n%s", h.Log())
		}
		c.Right(t, client.Request{First: (3 - round) * quarter, Count: quarter, Order: "random", Source: source})
		if now := h.Pid(); now == pid || now == 0 {
			t.Errorf("the server is process %d, and was %d", now, pid)
		}
	}
	// The next server knows what is in use, and commands find it.
	cli.Fails(t, "busy", "rm", store, "vm")
	cli.Fails(t, "busy", "umount", h.Dir)
	cli.OK(t, "stats", h.Dir)
	c.Close(t)
	cli.OK(t, "umount", h.Dir)
	h.Ended(10 * time.Second)
	cli.OK(t, "check", store, "--read-data")
}

// TestHeldEnds: a mount whose server was killed can be ended in every way, also by its holder.
func TestHeldEnds(t *testing.T) {
	for name, end := range map[string]func(h *cli.Held){
		"abort":       func(h *cli.Held) { cli.OK(t, "umount", "--abort", h.Dir) },
		"SIGTERM":     func(h *cli.Held) { _ = syscall.Kill(h.Holder(), syscall.SIGTERM) },
		"detach":      func(h *cli.Held) { cli.OK(t, "umount", "--detach", h.Dir) },
		"umount(8)":   func(h *cli.Held) { _ = syscall.Unmount(h.Dir, syscall.MNT_DETACH) },
		"kill of all": func(h *cli.Held) { _ = syscall.Kill(h.Holder(), syscall.SIGKILL); h.KillServer() },
	} {
		t.Run(name, func(t *testing.T) {
			store, source := storeWith(t, tiny)
			h := cli.MountHeld(t, store, "--restore=lazy")
			c := h.Client(t)
			c.Open(t, h.Path("vm/memory"), client.Map{Private: true})
			c.Right(t, client.Request{Count: tiny.Pages / 2, Source: source})
			h.KillServer()
			c.Right(t, client.Request{Count: tiny.Pages, Source: source})
			c.Close(t)
			end(h)
			h.Ended(15 * time.Second)
		})
	}
}

// TestDetachedKilled: a mount that is out of the tree and in use survives, too, until it is aborted.
func TestDetachedKilled(t *testing.T) {
	store, source := storeWith(t, small)
	h := cli.MountHeld(t, store, "--restore=lazy")
	c := h.Client(t)
	c.Open(t, h.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages / 4, Source: source})
	cli.OK(t, "umount", "--detach", h.Dir)
	h.KillServer()
	c.Right(t, client.Request{Count: small.Pages / 2, Source: source})
	cli.OK(t, "umount", "--abort", h.Dir)
	h.Ended(15 * time.Second)
	a := c.Must(t, client.Request{Op: "touch", First: small.Pages / 2, Count: small.Pages / 2, Source: source})
	if onlyRightOrLost(t, "after the abort", a) == 0 {
		t.Error("no page is lost")
	}
}

// TestServerDiesAtStart: when no server comes to serve, who waits gets an error within the bound, and a
// machine
// ends with memory-lost.
func TestServerDiesAtStart(t *testing.T) {
	store, source := storeWith(t, small)
	h := cli.MountHeld(t, store, "--restore=lazy", "--takeover-patience=2s")
	c := h.Client(t)
	c.Open(t, h.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages / 4, Source: source})
	file := filepath.Join(store, "thaw-store.json")
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	h.KillServer()
	start := time.Now()
	a := c.Must(t, client.Request{Op: "touch", First: small.Pages - 1, Count: 1, Source: source})
	if lost := onlyRightOrLost(t, "the page that nobody brings", a); lost != 1 {
		t.Errorf("%d pages are lost", lost)
	}
	h.Ended(10 * time.Second)
	t.Logf("given up after %v", time.Since(start))
	if !strings.Contains(h.Log(), "no server has come to serve it") {
		t.Errorf("the log does not say why:\n%s", h.Log())
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	cli.OK(t, "mount", store, h.Dir, "--daemon", "--repack=off") // takes the dead mount away
	cli.OK(t, "umount", h.Dir)
}

// TestUpgrades: one program after the other goes on, and no request is lost.
func TestUpgrades(t *testing.T) {
	store, source := storeWith(t, small)
	h := cli.MountHeld(t, store, "--restore=lazy")
	stop, done := reading(t, h, store, source, 2)
	for range fewer(10, 3) {
		pid := h.Pid()
		r := cli.JSON[struct {
			PID  int     `json:"pid"`
			Took float64 `json:"seconds"`
		}](t, "upgrade", h.Dir)
		t.Logf("upgraded in %.3f s", r.Took)
		if r.PID != pid {
			t.Errorf("the server is process %d, and was %d", r.PID, pid)
		}
	}
	h.KillServer() // and the holder goes on with it
	close(stop)
	done()
	cli.OK(t, "umount", h.Dir)
	h.Ended(10 * time.Second)
}

// TestUpgradeOfForeground: a server in the foreground that nobody holds is upgraded as well.
func TestUpgradeOfForeground(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: the next server gets /dev/fuse")
	}
	store, source := storeWith(t, tiny)
	m := cli.Mount(t, store, "--restore=lazy", "--takeover=auto")
	c := m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: tiny.Pages / 2, Source: source})
	cli.OK(t, "upgrade", m.Dir)
	c.Right(t, client.Request{Count: tiny.Pages, Source: source})
	c.Close(t)
	m.Unmount()
}

// reading has clients read through mappings again and again until stop is closed; done waits for them.
func reading(t *testing.T, h *cli.Held, store, source string, clients int) (stop chan struct{}, done func()) {
	t.Helper()
	stop = make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex
	var longest time.Duration
	pages := uint64(0)
	for n := range clients {
		c := h.Client(t)
		rnd := rand.New(rand.NewPCG(uint64(n), rand.Uint64()))
		all.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-stop:
					return
				default:
				}
				path := h.Path(fmt.Sprintf("vm/clones/c%d-%d/memory", n, round))
				how := client.Map{ReadWrite: true, Private: true, Random: true}
				for _, r := range []client.Request{
					{Op: "open", Path: path, Map: how},
					{Op: "touch", Count: small.Pages, Order: "random", Seed: rnd.Uint64(), Source: source, Times: true},
					{Op: "close"},
				} {
					a, err := c.Call(r)
					if err != nil || a.Error != "" || len(a.Wrong)+len(a.Lost) > 0 {
						t.Errorf("%s %s: %v %s, %d wrong, %d lost", r.Op, path, err, a.Error, len(a.Wrong), len(a.Lost))
						return
					}
					mu.Lock()
					pages += a.Pages
					if len(a.NS) > 0 {
						longest = max(longest, time.Duration(slices.Max(a.NS)))
					}
					mu.Unlock()
				}
			}
		})
	}
	return stop, func() {
		t.Helper()
		all.Wait()
		t.Logf("%d pages were read, the longest touch took %v", pages, longest)
	}
}
