package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
)

// withWorkingSet makes a store whose "vm" has a working set of a quarter of its pages, scattered.
func withWorkingSet(t *testing.T, s image.Spec) (store, source string, set []uint64) {
	t.Helper()
	store, source = storeWith(t, s)
	var runs [][2]uint64
	for gfn := uint64(0); gfn+16 <= s.Pages; gfn += 64 {
		first := (gfn*37 + 5) % (s.Pages - 16) / 16 * 16
		runs = append(runs, [2]uint64{first, 16})
		for i := range uint64(16) {
			set = append(set, first+i)
		}
	}
	ws := filepath.Join(t.TempDir(), "ws")
	writeWorkingSet(t, ws, s.Pages, runs)
	cli.OK(t, "ws", "import", store, "vm", ws)
	return store, source, set
}

func distinct(gfns []uint64) uint64 {
	seen := map[uint64]bool{}
	for _, g := range gfns {
		seen[g] = true
	}
	return uint64(len(seen))
}

// TestManyOpens: eight machines open one cold image at once and prefetch it once; a later open
// finds it there. None of them needs one demand read for a page of the working set.
func TestManyOpens(t *testing.T) {
	store, source, set := withWorkingSet(t, small)
	m := cli.Mount(t, store, "--restore=working-set-full")
	clients := make([]*client.Client, 8)
	for i := range clients {
		clients[i] = m.Client(t)
	}
	open := client.Request{Op: "open", Path: m.Path("vm/memory"),
		Map: client.Map{Private: true, Writable: true, Random: true}}
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			a, err := c.Call(open)
			if err == nil && a.Error != "" {
				err = fmt.Errorf("%s", a.Error)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("open %d: %v", i, err)
		}
	}
	for _, c := range clients {
		c.Right(t, client.Request{GFNs: set, Source: source})
	}
	s := m.Stats(t, "vm")
	if s.Prefetches != 1 || s.PrefetchedPages != distinct(set) || s.Demanded() != 0 || s.Opens != 8 {
		t.Errorf("want 8 opens, one prefetch of %d pages, no demand reads: %+v", distinct(set), s)
	}
	late := m.Client(t)
	late.Must(t, open)
	late.Right(t, client.Request{GFNs: set, Source: source})
	if s := m.Stats(t, "vm"); s.Demanded() != 0 || s.PrefetchedPages < distinct(set) {
		t.Errorf("the ninth open: %+v", s)
	}
	for _, c := range clients { // what each writes is its own
		c.Must(t, client.Request{Op: "store", GFNs: set, Byte: 0xbd})
	}
	late.Right(t, client.Request{Count: small.Pages, Source: source})
}

// TestPolicies: what each policy brings, and that a cap lets the open return while the rest comes.
func TestPolicies(t *testing.T) {
	store, source, set := withWorkingSet(t, small)
	for _, tt := range []struct {
		policy     string
		prefetched uint64
	}{
		{"lazy", 0}, {"working-set", 1}, {"working-set-full", distinct(set)}, {"eager", small.Pages},
	} {
		t.Run(tt.policy, func(t *testing.T) {
			m := cli.Mount(t, store, "--restore="+tt.policy)
			for _, file := range []string{"vm/memory", "vm/clones/a/memory"} {
				c := m.Client(t)
				c.Open(t, m.Path(file), client.Map{Private: true, Random: true})
				if s := m.Stats(t, filepath.Dir(file)); s.PrefetchedPages < tt.prefetched {
					t.Errorf("%s: want %d prefetched pages: %v", file, tt.prefetched, s)
				}
				c.Right(t, client.Request{Count: small.Pages, Order: "random", Seed: 9, Source: source})
				if s := m.Stats(t, filepath.Dir(file)); tt.policy == "eager" && s.Demanded() != 0 {
					t.Errorf("%s: demand reads after an eager restore: %v", file, s)
				}
			}
		})
	}
	t.Run("capped", func(t *testing.T) {
		m := cli.Mount(t, store, "--restore=eager", "--prefetch-cap-bytes=1MiB")
		c := m.Client(t)
		c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
		if s := m.Stats(t, "vm"); s.PrefetchedBytes > 4<<20 {
			t.Errorf("a cap of 1 MiB let %d bytes be prefetched", s.PrefetchedBytes)
		}
		c.Right(t, client.Request{Count: small.Pages, Order: "random", Source: source})
	})
	t.Run("capped-by-time", func(t *testing.T) {
		m := cli.Mount(t, store, "--prefetch-cap-time=1ns")
		c := m.Client(t)
		c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
		c.Right(t, client.Request{Count: small.Pages, Order: "random", Source: source})
	})
}

// TestNewCheckpointAppearsAtOnce: all commands work on a store that is mounted, and the tree
// follows each before the command returns — also where the kernel had learned that a name does not
// exist, and where a new checkpoint takes the name of a removed one.
func TestNewCheckpointAppearsAtOnce(t *testing.T) {
	store, source := storeWith(t, small)
	other := image.Spec{Pages: 512, Seed: 77}
	otherFile := writeImage(t, other)
	m := cli.Mount(t, store)
	c := m.Client(t)
	ask := func(name string) string {
		return c.Do(t, client.Request{Op: "open", Path: m.Path(name, "memory"),
			Map: client.Map{Private: true}}).Errno
	}
	for range 3 {
		if got := ask("new"); got != "ENOENT" {
			t.Fatalf("before the import: %q", got)
		}
		cli.OK(t, "import", store, otherFile, "--name", "new")
		if got := ask("new"); got != "" {
			t.Fatalf("after the import: %q", got)
		}
		c.Right(t, client.Request{Count: other.Pages, Source: otherFile})
		c.Close(t)
		cli.OK(t, "rm", store, "new")
		if got := ask("new"); got != "ENOENT" {
			t.Fatalf("after rm: %q", got)
		}
		// The same name, other bytes.
		cli.OK(t, "import", store, source, "--name", "new")
		if got := ask("new"); got != "" {
			t.Fatalf("after the import of another image: %q", got)
		}
		c.Right(t, client.Request{Count: small.Pages, Source: source})
		c.Close(t)
		cli.OK(t, "rm", store, "new")
	}
	if got := names(t, store); len(got) != 1 {
		t.Errorf("the store lists %q", got)
	}
	cli.OK(t, "inspect", store, "vm")
	cli.OK(t, "check", store, "--read-data")
	cli.OK(t, "gc", store)
	exportEquals(t, store, "vm", source)
	cli.OK(t, "stats", m.Dir)
	cli.OK(t, "stats", m.Dir, "vm", "--json")
}

// TestDaemon: --daemon returns when the mount answers, and umount ends the server.
func TestDaemon(t *testing.T) {
	cli.NeedFUSE(t)
	store, source := storeWith(t, tiny)
	mnt := t.TempDir()
	t.Cleanup(func() { cli.Run(t, "umount", "--abort", mnt) })
	cli.OK(t, "mount", store, mnt, "--daemon")
	c := client.Start(t, nil)
	c.Open(t, filepath.Join(mnt, "vm/memory"), client.Map{Private: true})
	c.Right(t, client.Request{Count: tiny.Pages, Source: source})
	cli.Fails(t, "busy", "umount", mnt)
	c.Close(t)
	cli.OK(t, "umount", mnt)
	// The server has released the store.
	m := cli.MountAs(t, nil, store, mnt)
	m.Unmount()
}

// TestUnprivileged mounts as another user through fusermount3.
func TestUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user (without root, all tests are unprivileged)")
	}
	if _, err := cli.Tool(t, cliLimit, "sh", "-c", "command -v fusermount3"); err != nil {
		t.Skip("needs fusermount3 (apt-get install fuse3)")
	}
	const nobody = 65534
	cred := &syscall.Credential{Uid: nobody, Gid: nobody}
	dir := othersDir(t)
	store, mnt, source := filepath.Join(dir, "store"), filepath.Join(dir, "mnt"), filepath.Join(dir, "image.mem")
	if err := small.Write(source); err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) {
		t.Helper()
		cmd := cli.Command(args...)
		cmd.SysProcAttr.Credential = cred
		if r := cli.RunCommand(t, cmd); r.Code != want {
			t.Fatalf("as nobody, want status %d: %v", want, r)
		}
	}
	run(0, "import", store, source, "--name", "vm")
	m := cli.MountAs(t, cred, store, mnt)
	c := client.StartAs(t, cred, nil)
	c.Open(t, m.Path("vm/clones/a/memory"), client.Map{ReadWrite: true, Private: true, Random: true})
	c.Right(t, client.Request{Count: small.Pages, Order: "random", Source: source})
	run(0, "import", store, source, "--name", "second")
	c.Open(t, m.Path("second/memory"), client.Map{Private: true})
	c.Right(t, client.Request{Count: small.Pages, Source: source})
	c.Close(t)
	run(0, "umount", mnt)
	if err := m.WaitEnd(20 * time.Second); err != nil {
		t.Errorf("the server: %v\n%s", err, m.Log())
	}
}

// othersDir makes a directory that nobody owns and can reach; skips where the way there is closed.
func othersDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "thaw-nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for up := filepath.Dir(dir); up != "/"; up = filepath.Dir(up) {
		if st, err := os.Stat(up); err != nil || st.Mode()&0o001 == 0 {
			t.Skipf("needs a scratch directory that others may enter: %s is closed (set TMPDIR)", up)
		}
	}
	st, err := os.Stat(filepath.Dir(cli.Binary()))
	if err != nil || !strings.HasSuffix(st.Mode().String(), "x") {
		t.Skipf("needs a built command that others may run")
	}
	return dir
}
