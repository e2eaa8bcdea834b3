package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
)

// onlyRightOrLost requires that no page has wrong bytes, and gives the number of lost pages.
func onlyRightOrLost(t *testing.T, what string, a client.Response) int {
	t.Helper()
	if len(a.Wrong) > 0 {
		t.Errorf("%s: %d of %d pages have wrong bytes: %v", what, len(a.Wrong), a.Pages,
			client.First(a.Wrong))
	}
	return len(a.Lost)
}

// TestServerKilledUnderClient: what a mapping has keeps its bytes, everything else is an error at
// once; the store is not damaged and can be mounted again at the same place.
func TestServerKilledUnderClient(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store, "--restore=lazy")
	c := m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
	half := small.Pages / 2
	c.Right(t, client.Request{Count: half, Source: source})
	m.Kill()

	start := time.Now()
	first := c.Must(t, client.Request{Op: "touch", Count: half, Source: source})
	// A few may have been evicted meanwhile.
	if lost := onlyRightOrLost(t, "pages that were there", first); lost > int(half)/10 {
		t.Errorf("%d of %d pages that were in the page cache are lost", lost, half)
	}
	rest := c.Must(t, client.Request{Op: "touch", First: half, Count: half, Source: source})
	// The lazy reads may have brought neighbours along, so not quite all are lost.
	if lost := onlyRightOrLost(t, "pages that were not there", rest); lost < int(half)/2 {
		t.Errorf("only %d of %d pages that the server never gave are lost", lost, half)
	}
	a := c.Do(t, client.Request{Op: "pread", Offset: int64(small.Pages-1) * 4096, Length: 4096})
	if a.Errno != "ENOTCONN" && a.Errno != "ECONNABORTED" && a.Errno != "EIO" {
		t.Errorf("read: %q (%s), want ENOTCONN", a.Errno, a.Error)
	}
	other := m.Client(t)
	if a := other.Do(t, client.Request{Op: "open", Path: m.Path("vm/memory")}); a.Errno != "ENOTCONN" {
		t.Errorf("open: %q (%s), want ENOTCONN", a.Errno, a.Error)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the errors took %v", took)
	}

	cli.Fails(t, "server-gone", "stats", m.Dir)
	cli.OK(t, "umount", "--abort", m.Dir)
	c.Close(t)
	cli.OK(t, "check", store, "--read-data")
	again := cli.MountAs(t, nil, store, m.Dir)
	c.Open(t, again.Path("vm/memory"), client.Map{Private: true})
	c.Right(t, client.Request{Count: small.Pages, Source: source})
	c.Close(t) // before the server ends
}

// TestServerKilledInPrefetch: an open that waits for its prefetch ends with an error.
func TestServerKilledInPrefetch(t *testing.T) {
	big := image.Spec{Pages: scaled(64 << 10), Seed: 3} // 256 MiB: a prefetch of some tenths of a second
	store, source := storeWith(t, big)
	m := cli.Mount(t, store, "--restore=eager")
	c := m.Client(t)
	got := make(chan client.Response, 1)
	failed := make(chan error, 1)
	go func() {
		a, err := c.Call(client.Request{Op: "open", Path: m.Path("vm/memory"),
			Map: client.Map{Private: true, Random: true}})
		if err != nil {
			failed <- err
			return
		}
		got <- a
	}()
	// Not a measure of time: wherever in the open the kill falls, the outcome must be clean.
	time.Sleep(time.Duration(20+rand.IntN(60)) * time.Millisecond)
	m.Kill()
	select {
	case err := <-failed:
		t.Fatal(err)
	case a := <-got:
		if a.Error == "" {
			r := c.Must(t, client.Request{Op: "touch", Count: big.Pages, Source: source})
			onlyRightOrLost(t, "opened just before the kill", r)
		}
	}
}

// TestServerKilledUnderLinux: the guest goes on with what it has, or its QEMU ends; it never
// computes with wrong bytes and never hangs its process.
func TestServerKilledUnderLinux(t *testing.T) {
	cli.NeedFUSE(t)
	l := linux(t)
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, l.first, "--name", "linux")
	m := cli.Mount(t, store, "--restore=lazy")
	g := restoreLinux(t, l, m, "linux", "a")
	g.goesOn(t, l.ticks, 1)
	m.Kill()
	// The check of all files must come upon pages that are not there.
	if err := g.Command("all"); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Logf("command: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	select {
	case <-g.Exited():
		t.Logf("QEMU ended: %v", g.Err())
	case <-ctx.Done():
		t.Fatalf("QEMU goes on without its memory; console:\n%s", g.Console.Text())
	}
	noBadTicks(t, g.Console.Text())
}

func noBadTicks(t *testing.T, console string) {
	t.Helper()
	for line := range strings.Lines(console) {
		if strings.Contains(line, "bad=") && !strings.Contains(line, "bad=0") {
			t.Errorf("the guest computed with wrong bytes: %s", line)
		}
	}
}

// TestUmountUnderLinux: umount refuses while a guest runs, and the guest does not notice; --abort
// ends everything at once.
func TestUmountUnderLinux(t *testing.T) {
	cli.NeedFUSE(t)
	l := linux(t)
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, l.first, "--name", "linux")
	m := cli.Mount(t, store, "--restore=lazy")
	g := restoreLinux(t, l, m, "linux", "a")
	g.goesOn(t, l.ticks, 1)
	cli.Fails(t, "busy", "umount", m.Dir)
	g.goesOn(t, l.ticks, 2)
	cli.Fails(t, "busy", "rm", store, "linux")

	cli.OK(t, "umount", "--abort", m.Dir)
	_ = g.Command("all")
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	select {
	case <-g.Exited():
		t.Logf("QEMU ended: %v", g.Err())
	case <-ctx.Done():
		t.Fatalf("QEMU goes on without its memory; console:\n%s", g.Console.Text())
	}
	noBadTicks(t, g.Console.Text())
	if err := m.WaitEnd(20 * time.Second); err != nil {
		t.Logf("the server ended with: %v", err)
	}
	cli.OK(t, "check", store)
}

// TestUmountBusy is the same with a client that maps: refused, unharmed; aborted, lost at once.
func TestUmountBusy(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store, "--restore=lazy")
	c := m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
	half := small.Pages / 2
	c.Right(t, client.Request{Count: half, Source: source})
	cli.Fails(t, "busy", "umount", m.Dir)
	c.Right(t, client.Request{First: half, Count: half / 2, Source: source})
	cli.OK(t, "umount", "--abort", m.Dir)
	a := c.Must(t, client.Request{Op: "touch", First: half + half/2, Count: half / 2, Source: source})
	if lost := onlyRightOrLost(t, "after --abort", a); lost == 0 {
		t.Error("no page is lost after --abort")
	}
	if err := m.WaitEnd(20 * time.Second); err != nil {
		t.Logf("the server ended with: %v", err)
	}
	if _, err := os.Stat(m.Path(".thaw")); !os.IsNotExist(err) {
		t.Errorf("the mount point after --abort: %v", err)
	}
	cli.OK(t, "check", store, "--read-data")
}

// TestServerTerminatedInUse: SIGTERM with a file mapped takes the mount out of the tree and lets
// the client finish; when it is done, the server ends.
func TestServerTerminatedInUse(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store, "--restore=lazy")
	c := m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages / 2, Source: source})
	m.Terminate()
	c.Right(t, client.Request{Count: small.Pages, Source: source})
	c.Close(t)
	if err := m.WaitEnd(30 * time.Second); err != nil {
		t.Errorf("the server after its last client has gone: %v\n%s", err, m.Log())
	}
}
