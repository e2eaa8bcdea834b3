package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/tests/internal/proc"
	"github.com/thawfs/thaw/tests/internal/race"
)

// someSet writes a working set of an image: other pages for each n, 16 of each 64.
func someSet(t *testing.T, s image.Spec, n uint64) string {
	t.Helper()
	var runs [][2]uint64
	for gfn := uint64(0); gfn+64 <= s.Pages; gfn += 64 {
		if gfn/64%5 == n%5 {
			runs = append(runs, [2]uint64{gfn + n%3*16, 16})
		}
	}
	path := filepath.Join(t.TempDir(), "set")
	writeWorkingSet(t, path, s.Pages, runs)
	return path
}

// TestRepackKilled kills repackings at random instants, while a machine reads its memory from the store
// again and again. Every page is right, and nothing is left.
func TestRepackKilled(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store, "--restore=lazy", "--repack=off")
	c := m.Client(t)
	rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
	var reader sync.WaitGroup
	stop := make(chan struct{})
	var failed error
	reader.Go(func() {
		for round := 0; failed == nil; round++ {
			select {
			case <-stop:
				return
			default:
				failed = useOnce(c, m, rand.New(rand.NewPCG(uint64(round), 3)), 0, round, source)
			}
		}
	})
	rounds, killed := fewer(10, 4), 0
	if race.Enabled {
		rounds = 4
	}
	for n := range rounds {
		cli.OK(t, "ws", "import", store, "vm", someSet(t, small, uint64(n)))
		p, err := proc.Start(cli.Command("repack", store))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(rnd.IntN(3000))*time.Millisecond, func() { _ = p.Signal(os.Kill) })
		if err := p.Wait(time.Minute); err != nil {
			killed++
		}
		// Its pages are cold again: the reader comes for them.
		cli.OK(t, "ws", "record", "--reset", m.Path("vm"))
	}
	close(stop)
	reader.Wait()
	if failed != nil {
		t.Fatal(failed)
	}
	t.Logf("%d of %d were killed", killed, rounds)
	cli.OK(t, "repack", store)
	if r := cli.JSON[struct {
		Repacked int `json:"repacked_packs"`
	}](t, "repack", store); r.Repacked != 0 {
		t.Errorf("a second time %d packs are repacked", r.Repacked)
	}
	c.Close(t)
	m.Unmount()
	cli.OK(t, "check", store, "--read-data")
	exportEquals(t, store, "vm", source)
	cli.OK(t, "gc", store)
	left, err := filepath.Glob(filepath.Join(store, "packs", "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("the packs are %v (%v)", left, err)
	}
	for _, path := range left {
		if !strings.HasSuffix(path, ".pack") {
			t.Errorf("%s is left", path)
		}
	}
}

// repackerOf is the process that repacks for a server; 0 if there is none.
func repackerOf(server int) (pid int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", server))
	for _, list := range lists {
		b, _ := os.ReadFile(list) // the thread may be gone
		for _, field := range strings.Fields(string(b)) {
			line, _ := os.ReadFile("/proc/" + field + "/cmdline")
			if strings.Contains(string(line), "repacker-of-a-server") {
				pid, _ = strconv.Atoi(field)
			}
		}
	}
	return pid
}

// awaitRepacker waits until the server's process has the store.
func awaitRepacker(t *testing.T, m *cli.Mounted) (pid int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		lock, _ := os.ReadFile(filepath.Join(m.Store, "write.lock"))
		if pid := repackerOf(m.Pid()); pid != 0 && strings.Contains(string(lock), fmt.Sprintf("pid %d ", pid)) {
			return pid
		}
	}
	t.Fatalf("the store is not repacked\n%s", m.Log())
	return 0
}

// hurry takes a repacker out of the idle class, which gets nothing on a busy host. It may have ended.
func hurry(pid int) {
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, thread := range threads {
		if tid, err := strconv.Atoi(thread.Name()); err == nil {
			_ = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0)
		}
	}
}

// gone waits for the end of a process that is not this one's child.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(line), "repacker-of-a-server") {
			return
		}
	}
	t.Errorf("process %d is still there", pid)
}

// TestRepackGivesWay: commands that write to a store which its server is repacking do not fail because of
// that, whenever they come; in the end it is repacked.
func TestRepackGivesWay(t *testing.T) {
	large := image.Spec{Pages: scaled(48 << 10), Seed: 21}
	store, source := storeWith(t, large)
	other := image.Spec{Pages: 1024, Seed: 22}
	otherFile := writeImage(t, other)
	m := cli.Mount(t, store, "--repack-after=1ms")
	for n := range 3 {
		name := fmt.Sprint("other-", n)
		hurry(awaitRepacker(t, m)) // else it gets no processor to give way with, on a busy host
		for _, args := range [][]string{
			{"import", store, otherFile, "--name", name}, {"rm", store, name}, {"gc", store},
		} {
			if r := cli.Run(t, args...); r.Code != 0 { // how long it waits is for the host to say
				t.Errorf("%v\n%s", r, m.Log())
			}
		}
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		hurry(repackerOf(m.Pid()))
		list := cli.JSON[[]struct{ Packed struct{ State string } }](t, "ls", store)
		if len(list) == 1 && list[0].Packed.State == "yes" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it is not repacked: %+v\n%s", list, m.Log())
		}
	}
	c := m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true})
	c.Right(t, client.Request{Count: large.Pages, Source: source})
	c.Close(t)
	m.Unmount()
	cli.OK(t, "check", store, "--read-data")
}

// TestRepackEndsWithItsServer: whether that is asked to end, or killed.
func TestRepackEndsWithItsServer(t *testing.T) {
	large := image.Spec{Pages: scaled(48 << 10), Seed: 23}
	store, source := storeWith(t, large)
	m := cli.Mount(t, store, "--repack-after=1ms")
	pid := awaitRepacker(t, m)
	m.Unmount()
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(line) > 0 {
		t.Errorf("the server has ended, and %q is there", line)
	}
	m = cli.Mount(t, store, "--repack-after=1ms")
	pid = awaitRepacker(t, m)
	m.Kill()
	gone(t, pid)
	cli.OK(t, "check", store, "--read-data")
	exportEquals(t, store, "vm", source)
	cli.OK(t, "gc", store)
	left, err := filepath.Glob(filepath.Join(store, "packs", "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("the packs are %v (%v)", left, err)
	}
}

// TestRepackStopped: a command that writes to the store gets it although the process that repacks is stopped,
// which the server kills then.
func TestRepackStopped(t *testing.T) {
	store, source := storeWith(t, image.Spec{Pages: scaled(24 << 10), Seed: 27})
	otherFile := writeImage(t, image.Spec{Pages: 1024, Seed: 28})
	m := cli.Mount(t, store, "--repack-after=1ms")
	pid := awaitRepacker(t, m)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT) // where it was not killed
	if r := cli.Run(t, "import", store, otherFile, "--name", "other"); r.Code != 0 {
		t.Errorf("%v\n%s", r, m.Log())
	}
	gone(t, pid)
	m.Unmount()
	exportEquals(t, store, "vm", source)
}

// TestRepackCommandGivesWay: so does the command, which has the store the longest.
func TestRepackCommandGivesWay(t *testing.T) {
	store, source := storeWith(t, image.Spec{Pages: scaled(48 << 10), Seed: 25})
	otherFile := writeImage(t, image.Spec{Pages: 1024, Seed: 26})
	p, err := proc.Start(cli.Command("repack", store))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill(time.Minute)
	met := 0
	for n := range 3 {
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			lock, _ := os.ReadFile(filepath.Join(store, "write.lock"))
			if strings.Contains(string(lock), fmt.Sprintf("pid %d ", p.Pid())) {
				met++
				break
			}
		}
		r := cli.Run(t, "import", store, otherFile, "--name", fmt.Sprint("other-", n))
		if r.Code != 0 || strings.Contains(r.Stderr, "waiting") {
			t.Errorf("%v", r)
		}
	}
	if err := p.Wait(2 * time.Minute); err != nil || p.Err() != nil {
		t.Errorf("repack: %v, %v", err, p.Err())
	}
	t.Logf("it had the store at %d of 3 imports", met)
	if r := cli.OK(t, "repack", store); !strings.Contains(r.Stdout, "nothing to repack") && met == 3 {
		t.Errorf("%v", r)
	}
	exportEquals(t, store, "vm", source)
}

// TestRepackAsked: what machines asked for, beside any working set, stays where it is quick to read.
func TestRepackAsked(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store, "--restore=lazy", "--repack=off")
	c := m.Client(t)
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Random: true})
	c.Right(t, client.Request{First: 512, Count: 200, Source: source})
	c.Close(t)
	m.Unmount()
	r := cli.JSON[struct {
		Warm uint64 `json:"warm_pages"`
		Cold uint64 `json:"cold_pages"`
		Hot  uint64 `json:"hot_pages"`
	}](t, "repack", store)
	if r.Warm < 32 || r.Warm > 200 || r.Hot > 0 || r.Cold < small.Pages/8 {
		t.Errorf("%+v", r)
	}
}
