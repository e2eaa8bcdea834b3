package rights

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
)

// ownHost in the environment says that the host is the test's own (tests/nested).
const ownHost = "THAW_TEST_OWN_HOST"

// TestClockJumps: the clock of the host is set decades back and ahead, again and again, under a mount, a
// machine and commands at work: all of it goes on, and no time that is told is that of a jump.
func TestClockJumps(t *testing.T) {
	if os.Getenv(ownHost) == "" {
		t.Skip("needs a host whose clock it may set (tests/nested)")
	}
	dir := t.TempDir()
	store, source := stored(t, dir)
	m := cli.Mount(t, store, "--learn", "--learn-quiet=100ms", "--repack-after=1ms")
	stop := make(chan struct{})
	var jumps sync.WaitGroup
	jumps.Go(func() { jump(t, stop) })
	defer jumps.Wait()
	defer close(stop)
	for _, clone := range []string{"a", "b", "c"} {
		c := m.Client(t)
		c.Open(t, m.Path("vm/clones", clone, "memory"),
			client.Map{ReadWrite: true, Private: true, Random: true})
		c.Right(t, client.Request{Count: small.Pages, Source: source})
		cli.OK(t, "import", store, source, "--name", "of-"+clone)
		cli.OK(t, "ls", store)
		cli.OK(t, "repack", store)
		cli.OK(t, "gc", store)
		c.Close(t)
		if s := m.Stats(t, "vm"); s.StallSeconds > 600 || s.PrefetchSeconds > 600 {
			t.Errorf("times of a jump: %v", s)
		}
	}
	c := m.Client(t)
	c.Open(t, m.Path("of-a/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages, Source: source})
	c.Close(t)
	cli.OK(t, "check", store, "--read-data")
	cli.OK(t, "export", store, "of-c", filepath.Join(dir, "out"))
	m.Unmount()
}

// jump sets the clock until it is stopped.
func jump(t *testing.T, stop <-chan struct{}) {
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	years := []int64{1, 10, 68, 5, 33, 90}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-every.C:
		}
		at := unix.Timeval{Sec: years[i%len(years)] * 365 * 24 * 3600}
		if err := unix.Settimeofday(&at); err != nil {
			t.Errorf("set the clock: %v", err)
			return
		}
	}
}
