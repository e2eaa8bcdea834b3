package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/firecracker"
	"github.com/thawfs/thaw/tests/internal/image"
	"github.com/thawfs/thaw/wss"
)

// handOver starts a VM whose memory a pager serves.
func handOver(t *testing.T, p *cli.Pager, source string, r firecracker.Request) *firecracker.VM {
	t.Helper()
	vm := firecracker.Start(t)
	r.Op, r.Socket, r.Source = "hand", p.Socket, source
	a, err := vm.Call(r)
	switch {
	case err != nil:
		t.Fatal(err)
	case strings.HasPrefix(a.Error, "userfaultfd:"):
		t.Skip(a.Error) // without root it may need /dev/userfaultfd
	case a.Error != "":
		t.Fatal(a.Error)
	}
	return vm
}

// withSet gives a checkpoint a working set: pages of its, in an order of their own.
func withSet(t *testing.T, store string, s image.Spec) (pages []uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(s.Seed, 5))
	set := wss.Set{ImagePages: s.Pages, Window: time.Second, Way: "by a test"}
	for _, k := range rnd.Perm(int(s.Pages / 64))[:int(s.Pages/64/8)] {
		set.Runs = append(set.Runs, wss.Run{
			GFN: uint64(k) * 64, Count: 48, VCPU: wss.NoVCPU, Source: wss.SourceRead,
			At: time.Duration(len(set.Runs)) * time.Millisecond,
		})
		for gfn := range uint64(48) {
			pages = append(pages, uint64(k)*64+gfn)
		}
	}
	path := filepath.Join(t.TempDir(), "set")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := set.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	cli.OK(t, "ws", "import", store, "vm", path)
	return pages
}

// TestUffd: a VM lives at random, and its memory is what it must be: from a store and from a mount, with each
// policy.
func TestUffd(t *testing.T) {
	for _, where := range []string{"store", "mount"} {
		for _, policy := range []string{"working-set", "lazy", "eager"} {
			t.Run(where+"/"+policy, func(t *testing.T) { testUffd(t, where, policy) })
		}
	}
}

func testUffd(t *testing.T, where, policy string) {
	store, source := storeWith(t, small)
	set := withSet(t, store, small)
	path := store
	if where == "mount" {
		path = cli.Mount(t, store).Dir
	}
	p := cli.Uffd(t, path, "vm", "--restore="+policy)
	seed, steps := rand.Uint64(), 200
	if testing.Short() {
		steps = 50
	}
	t.Logf("seed %d", seed)
	vm := handOver(t, p, source, firecracker.Request{Splits: quarters(2)})
	a := vm.Must(t, firecracker.Request{Op: "live", Threads: 8, Steps: 2 * steps, Seed: seed})
	t.Logf("%d pages compared, memory was given back %d times", a.Pages, a.Removed)
	vm.Must(t, firecracker.Request{Op: "check"})
	vm.Must(t, firecracker.Request{Op: "live", Threads: 8, Steps: steps, Seed: seed + 1})
	vm.Must(t, firecracker.Request{Op: "check"})
	if policy == "eager" { // it needs nobody any more
		if r := p.Report(); r.End != "let-go" {
			t.Errorf("the pager ended because the VM was %s", r.End)
		}
		vm.Must(t, firecracker.Request{Op: "live", Threads: 8, Steps: steps, Seed: seed + 2})
		vm.Must(t, firecracker.Request{Op: "check"})
		return
	}
	vm.End(t)
	r := p.Report()
	if r.End != "ended" || r.PID != vm.Pid() || r.Removed == 0 || r.Faults == 0 {
		t.Errorf("the report: %+v", r)
	}
	came := r.SetSeconds != 0 && r.SetPages != 0
	if policy == "lazy" && r.SetSeconds != 0 || policy == "working-set" && !came {
		t.Errorf("of the %d pages of the set %d came in %.3f s", len(set), r.SetPages, r.SetSeconds)
	}
	t.Logf("%+v", r)
}

// TestUffdSetComesUnasked: the pages of the working set are there although nobody touches them, and no
// others but those at the ends of the regions.
func TestUffdSetComesUnasked(t *testing.T) {
	store, source := storeWith(t, small)
	set := withSet(t, store, small)
	p := cli.Uffd(t, store, "vm")
	vm := handOver(t, p, source, firecracker.Request{})
	want := uint64(len(set)) + 2
	deadline := time.Now().Add(time.Minute)
	for {
		a := vm.Must(t, firecracker.Request{Op: "resident"})
		if a.Pages > want {
			t.Fatalf("%d pages are there, the set has %d", a.Pages, len(set))
		}
		if a.Pages >= want-2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d pages of a set of %d came in a minute", a.Pages, len(set))
		}
	}
	vm.Must(t, firecracker.Request{Op: "touch", GFNs: set})
	vm.End(t)
	if r := p.Report(); r.Faults != 0 {
		t.Errorf("%d faults on pages of the set", r.Faults)
	}
}

// TestUffdOldVMM: what older VMMs send, a message of many parts and of more than 1 KiB, and a
// userfaultfd that tells of nothing.
func TestUffdOldVMM(t *testing.T) {
	store, source := storeWith(t, small)
	for _, r := range []firecracker.Request{
		{Old: true},
		{Parts: 50},
		{Splits: slices.Repeat([]uint64{128 << 10}, 40), Parts: 3},
		{Features: firecracker.NoFeatures},
		{Features: firecracker.FeatureRemove | firecracker.FeatureUnmap},
	} {
		p := cli.Uffd(t, store, "vm", "--restore=lazy")
		vm := handOver(t, p, source, r)
		vm.Must(t, firecracker.Request{Op: "check"})
		// Pages that were there, and are given back, are zeros, whether the pager is told or not.
		vm.Must(t, firecracker.Request{Op: "live", Threads: 4, Steps: 200, Seed: 1})
		vm.Must(t, firecracker.Request{Op: "check"})
		if r.Features&firecracker.FeatureUnmap != 0 {
			vm.Must(t, firecracker.Request{Op: "unmap"})
		}
		vm.End(t)
		p.Report()
	}
}

// quarters are regions of a quarter of the small image each.
func quarters(n int) []uint64 { return slices.Repeat([]uint64{uint64(small.Bytes()) / 4}, n) }

// TestUffdHugePages: pages of 2 MiB, where the host has some.
func TestUffdHugePages(t *testing.T) {
	spec := image.Spec{Pages: 8192, Seed: 21}
	reserveHugePages(t, int(spec.Pages/512))
	store, source := storeWith(t, spec)
	withSet(t, store, spec)
	for _, policy := range []string{"working-set", "lazy", "eager"} {
		p := cli.Uffd(t, store, "vm", "--restore="+policy)
		vm := handOver(t, p, source, firecracker.Request{PageSize: 2 << 20, Splits: []uint64{8 << 20}})
		vm.Must(t, firecracker.Request{Op: "live", Threads: 4, Steps: 300, Seed: 7})
		vm.Must(t, firecracker.Request{Op: "check"})
		if policy == "eager" {
			p.Report()
			vm.Must(t, firecracker.Request{Op: "live", Threads: 4, Steps: 300, Seed: 8})
			vm.Must(t, firecracker.Request{Op: "check"})
		}
		vm.End(t)
		p.Report()
	}
}

// reserveHugePages reserves so many more pages of 2 MiB for the test.
func reserveHugePages(t *testing.T, n int) {
	t.Helper()
	const file = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
	read := func() (n int) {
		text, err := os.ReadFile(file)
		if err == nil {
			_, err = fmt.Sscan(string(text), &n)
		}
		if err != nil {
			t.Skipf("pages of 2 MiB: %v", err)
		}
		return n
	}
	before := read()
	if err := os.WriteFile(file, fmt.Append(nil, before+n), 0); err != nil {
		t.Skipf("pages of 2 MiB cannot be reserved: %v", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, fmt.Append(nil, before), 0); err != nil {
			t.Error(err)
		}
	})
	if got := read(); got < before+n {
		t.Skipf("the host has memory for %d pages of 2 MiB, not for %d", got-before, n)
	}
}

// ended is within which time a VM that cannot be served must be ended.
const ended = 20 * time.Second

// TestUffdPagerKilled: the pager dies at any moment, and the VM is killed, and does not hang.
func TestUffdPagerKilled(t *testing.T) {
	store, source := storeWith(t, small)
	withSet(t, store, small)
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for i := range rounds {
		p := cli.Uffd(t, store, "vm")
		vm := firecracker.Start(t)
		// From before it connects to the middle of its life.
		delay := time.Duration(rand.Int64N(int64(80 * time.Millisecond)))
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			if i%3 == 2 { // when it surely depends on the pager
				for !strings.Contains(p.Log(), "serving") {
					time.Sleep(time.Millisecond)
				}
			}
			time.Sleep(delay)
			_ = syscall.Kill(p.Pid(), syscall.SIGKILL)
		}()
		a, err := vm.Call(firecracker.Request{Op: "hand", Socket: p.Socket, Source: source})
		for step := uint64(0); err == nil && a.Error == ""; step++ {
			a, err = vm.Call(firecracker.Request{Op: "live", Threads: 4, Steps: 50, Seed: step})
			if len(a.Wrong) > 0 {
				t.Fatalf("%d pages are wrong", len(a.Wrong))
			}
		}
		<-killed
		if err == nil {
			// It could not connect, or not send: a VMM ends with that error.
			t.Logf("killed after %v: %s", delay, a.Error)
			continue
		}
		if err := vm.Killed(ended); err != nil {
			t.Fatalf("killed after %v: %v\n%s", delay, err, p.Log())
		}
	}
}

// TestUffdGuardKilled: a guard that dies is replaced, and the new one does its work.
func TestUffdGuardKilled(t *testing.T) {
	store, source := storeWith(t, small)
	p := cli.Uffd(t, store, "vm", "--restore=lazy")
	vm := handOver(t, p, source, firecracker.Request{})
	vm.Must(t, firecracker.Request{Op: "live", Threads: 4, Steps: 50})
	for range 2 {
		guard := guardOf(t, p, 0)
		if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		guardOf(t, p, guard)
		vm.Must(t, firecracker.Request{Op: "live", Threads: 4, Steps: 50, Seed: 1})
	}
	p.Kill()
	if err := vm.Killed(ended); err != nil {
		t.Fatalf("%v\n%s", err, p.Log())
	}
}

// guardOf waits for the guard of a pager: another one than the given.
func guardOf(t *testing.T, p *cli.Pager, other int) int {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.Pid(), p.Pid()))
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.Pid()))
		for _, f := range tasks {
			more, _ := os.ReadFile(f)
			text = append(text, more...)
		}
		for _, word := range strings.Fields(string(text)) {
			pid := 0
			if _, err := fmt.Sscan(word, &pid); err == nil && pid != other && watches(pid) {
				return pid
			}
		}
	}
	t.Fatalf("the pager has no guard\n%s", p.Log())
	return 0
}

// watches says whether a process is a guard that has a pidfd of the VM.
func watches(pid int) bool {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(name), "guard-of-a-vm") {
		return false // or it is just being started
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && strings.Contains(link, "pidfd") {
			return true
		}
	}
	return false
}

// TestUffdTerminated: a pager that is asked to end ends its VM first.
func TestUffdTerminated(t *testing.T) {
	store, source := storeWith(t, small)
	p := cli.Uffd(t, store, "vm", "--restore=lazy")
	vm := handOver(t, p, source, firecracker.Request{})
	vm.Must(t, firecracker.Request{Op: "live", Threads: 4, Steps: 50})
	p.Terminate()
	if end := p.FailsAs("interrupted"); !strings.Contains(end.Stderr, "was ended") {
		t.Errorf("it does not say what became of the VM: %v", end)
	}
	if err := vm.Killed(ended); err != nil {
		t.Fatal(err)
	}
	// Without a VM it just ends.
	p = cli.Uffd(t, store, "vm")
	p.Terminate()
	p.FailsAs("interrupted")
	if _, err := os.Stat(p.Socket); err == nil {
		t.Error("its socket is left")
	}
}
