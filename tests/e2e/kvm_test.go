package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/proc"
	"github.com/thawfs/thaw/tests/internal/race"
)

// memoryLost and guestFailed are of `thaw help exit-codes`.
const (
	memoryLost  = 30
	guestFailed = 31
)

func needKVM(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("needs /dev/kvm: %v", err)
	}
	f.Close()
}

// machine is a `thaw vm` in the foreground of a process of its own, driven by its socket.
type machine struct {
	t    *testing.T
	sock string
	cmd  *exec.Cmd
	proc *proc.Process
	out  string // file with its report
	err  string // file with its messages
}

// startMachine starts `thaw vm ARGS --json --api SOCK` and waits until its socket answers.
func startMachine(t *testing.T, args ...string) *machine {
	t.Helper()
	needKVM(t)
	dir, err := os.MkdirTemp("", "thaw-vm") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	m := &machine{t: t, sock: in("s"), out: in("out"), err: in("err")}
	m.cmd = cli.Command(append(append([]string{"vm"}, args...), "--json", "--api", m.sock)...)
	stdout, err := os.Create(m.out)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	stderr, err := os.Create(m.err)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	m.cmd.Stdout, m.cmd.Stderr = stdout, stderr
	if m.proc, err = proc.Start(m.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.proc.Kill(10 * time.Second); err != nil {
			t.Errorf("vm %v: %v", args, err)
		}
		os.RemoveAll(dir)
	})
	return m
}

type vmStatus struct {
	State   string `json:"state"`
	Ready   bool   `json:"ready"`
	Done    uint64 `json:"done"`
	DoneNow uint64 `json:"done_now"`
}

// await asks for the status until it is as wanted.
func (m *machine) await(what string, want func(vmStatus) bool) vmStatus {
	m.t.Helper()
	deadline := time.Now().Add(time.Minute)
	var last cli.Result
	for time.Now().Before(deadline) {
		select {
		case <-m.proc.Done():
			m.t.Fatalf("waiting for %s: the machine ended: %s", what, m.messages())
		default:
		}
		last = cli.Run(m.t, "vm", "status", m.sock, "--json")
		var s vmStatus
		if last.Code == 0 && json.Unmarshal([]byte(last.Stdout), &s) == nil && want(s) {
			return s
		}
	}
	m.t.Fatalf("waited a minute for %s; %v %s", what, last, m.messages())
	return vmStatus{}
}

func (m *machine) messages() string {
	data, _ := os.ReadFile(m.err)
	return string(data)
}

// wait waits for the end of the machine and gives its exit status.
func (m *machine) wait(within time.Duration) int {
	m.t.Helper()
	select {
	case <-m.proc.Done():
	case <-time.After(within):
		m.t.Fatalf("the machine has not ended after %v (%s) %s", within, proc.State(m.proc.Pid()), m.messages())
	}
	return m.cmd.ProcessState.ExitCode()
}

// report of a machine that has ended.
type vmReport struct {
	End     string `json:"end"`
	Done    uint64 `json:"done"`
	Restore *struct {
		Counts *struct{ Prefetched, Skipped, Lazy uint64 } `json:"counts"`
		Exact  bool                                        `json:"exact"`
	} `json:"restore"`
}

// ended waits for the end with status 0 and gives the report.
func (m *machine) ended(within time.Duration) vmReport {
	m.t.Helper()
	if code := m.wait(within); code != 0 {
		m.t.Fatalf("the machine ended with status %d: %s", code, m.messages())
	}
	data, err := os.ReadFile(m.out)
	if err != nil {
		m.t.Fatal(err)
	}
	var r vmReport
	if err := json.Unmarshal(data, &r); err != nil {
		m.t.Fatalf("report: %v\n%s", err, data)
	}
	return r
}

// saveMachine runs a guest until it works and saves it; it gives the checkpoint directory and how
// many units the guest had done.
func saveMachine(t *testing.T, args ...string) (dir string, done uint64) {
	t.Helper()
	m := startMachine(t, append([]string{"run"}, args...)...)
	m.await("the guest's work", func(s vmStatus) bool { return s.Ready && s.Done > 0 })
	dir = filepath.Join(t.TempDir(), "saved")
	cli.OK(t, "vm", "pause", m.sock)
	done = m.await("the pause", func(s vmStatus) bool { return s.State == "paused" }).Done
	cli.OK(t, "vm", "checkpoint", m.sock, dir, "--stop")
	m.ended(20 * time.Second)
	return dir, done
}

// TestKVMGuest takes a KVM guest, which checks every byte that it reads, all the way: run, save,
// import, restore lazily, record, restore by working set and eagerly, export; and from the plain
// directory.
func TestKVMGuest(t *testing.T) {
	race.SkipSlow(t)
	cli.NeedFUSE(t)
	dir, done := saveMachine(t, "heap", "--memory", "256MiB", "--arg", "set=24MiB")
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, dir, "--name", "vm")
	out := filepath.Join(t.TempDir(), "out")
	cli.OK(t, "export", store, "vm", out)
	sameFile(t, filepath.Join(out, "memory"), filepath.Join(dir, "memory"))
	sameFile(t, filepath.Join(out, "state"), filepath.Join(dir, "state"))

	restore := func(t *testing.T, from string) vmReport {
		t.Helper()
		m := startMachine(t, "restore", from, "--for", "3s", "--window", "2s", "--count")
		r := m.ended(time.Minute)
		if r.Done <= done {
			t.Errorf("the guest had done %d units when it was saved, and %d after its restore", done, r.Done)
		}
		if r.Restore == nil || r.Restore.Counts == nil {
			t.Fatalf("no counts: %+v", r)
		}
		t.Logf("%s: %+v exact=%v", r.End, *r.Restore.Counts, r.Restore.Exact)
		return r
	}
	for _, plain := range someOf([]string{dir, out}, 1) { // their files are equal
		restore(t, plain)
	}

	m := cli.Mount(t, store, "--restore=lazy")
	cli.OK(t, "ws", "record", "--reset", m.Path("vm"))
	lazy := restore(t, m.Path("vm"))
	cli.OK(t, "ws", "record", m.Path("vm"))
	if c := lazy.Restore.Counts; c.Prefetched != 0 || c.Lazy == 0 {
		t.Errorf("lazily restored: %+v", *c)
	}
	m.Unmount()

	m = cli.Mount(t, store, "--restore=working-set-full")
	byTrace := restore(t, m.Path("vm"))
	c := byTrace.Restore.Counts
	if c.Prefetched == 0 || c.Lazy*5 > lazy.Restore.Counts.Lazy || c.Skipped == 0 {
		t.Errorf("restored by its working set: %+v; lazily: %+v", *c, *lazy.Restore.Counts)
	}
	m.Unmount()

	m = cli.Mount(t, store, "--restore=eager")
	all := restore(t, m.Path("vm")).Restore.Counts
	// The kernel may have evicted some before they were counted (see cli.Stats.Demanded).
	if want := uint64(256 << 20 / 4096); all.Prefetched < want*9/10 || all.Lazy > want/50 {
		t.Errorf("restored eagerly: %+v, want %d prefetched", *all, want)
	}
	m.Unmount()
}

// TestServerKilledUnderKVM: a machine whose server dies ends with the status memory-lost, at its
// first touch of a page that is not there.
func TestServerKilledUnderKVM(t *testing.T) {
	cli.NeedFUSE(t)
	dir, _ := saveMachine(t, "random:100", "--memory", "128MiB")
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, dir, "--name", "vm")
	for _, how := range []string{"kill", "abort", "kill-running"} {
		t.Run(how, func(t *testing.T) {
			m := cli.Mount(t, store, "--restore=lazy")
			args := []string{"restore", m.Path("vm"), "--for", "60s"}
			if how != "kill-running" {
				args = append(args, "--paused")
			}
			vm := startMachine(t, args...)
			switch how {
			case "kill":
				vm.await("the restore", func(s vmStatus) bool { return s.State == "paused" })
				m.Kill()
			case "abort":
				vm.await("the restore", func(s vmStatus) bool { return s.State == "paused" })
				cli.Fails(t, "busy", "umount", m.Dir)
				cli.OK(t, "umount", "--abort", m.Dir)
			default:
				// It may touch all of its memory before the server is dead; the guest then goes on.
				vm.await("the first pages", func(s vmStatus) bool { return s.State == "running" })
				m.Kill()
			}
			if how != "kill-running" {
				cli.Run(t, "vm", "resume", vm.sock) // unless its watchdog has ended it already
			}
			switch code := vm.wait(90 * time.Second); {
			case code == memoryLost:
			case code == 0 && how == "kill-running":
				t.Log("the guest had all of its memory when the server was killed")
			default:
				t.Errorf("the machine ended with status %d, want %d (memory-lost): %s", code, memoryLost, vm.messages())
			}
		})
	}
}

// TestCorruptPackUnderKVM: a machine that comes upon a damaged page ends with memory-lost and not
// with a wrong byte.
func TestCorruptPackUnderKVM(t *testing.T) {
	race.SkipSlow(t)
	cli.NeedFUSE(t)
	dir, _ := saveMachine(t, "random:100", "--memory", "128MiB")
	store := filepath.Join(t.TempDir(), "store")
	cli.OK(t, "import", store, dir, "--name", "vm")
	pack := packFiles(t, store)[0]
	st, err := os.Stat(pack)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, pack, st.Size()/2)
	m := cli.Mount(t, store, "--restore=lazy")
	vm := startMachine(t, "restore", m.Path("vm"), "--for", "60s")
	if code := vm.wait(90 * time.Second); code != memoryLost {
		t.Errorf("the machine ended with status %d, want %d (memory-lost): %s", code, memoryLost, vm.messages())
	}
}

// TestWrongByteIsNoticed: the instrument itself. A guest whose memory was changed must say so.
func TestWrongByteIsNoticed(t *testing.T) {
	race.SkipSlow(t)
	dir, _ := saveMachine(t, "random:100", "--memory", "64MiB")
	memory := filepath.Join(dir, "memory")
	st, err := os.Stat(memory)
	if err != nil {
		t.Fatal(err)
	}
	// Some place in the upper half: data of the guest, not its program.
	for off := st.Size() / 2; off < st.Size(); off += st.Size() / 16 {
		flip(t, memory, off+2048)
	}
	vm := startMachine(t, "restore", dir, "--for", "20s")
	if code := vm.wait(time.Minute); code != guestFailed {
		t.Errorf("the machine ended with status %d, want %d (guest-failed): %s", code, guestFailed, vm.messages())
	}
}

// TestDemo: the one command of the README, in little time, and its figures make sense.
func TestDemo(t *testing.T) {
	race.SkipSlow(t)
	cli.NeedFUSE(t)
	needKVM(t)
	type method struct {
		Method         string
		Prefetched     uint64
		Skipped, Lazy  *uint64
		RestoreSeconds float64 `json:"restore_seconds"`
		TTRSeconds     float64 `json:"ttr_seconds"`
	}
	args := []string{"demo", "--memory", "256MiB", "--arg", "set=24MiB", "--window", "3s", "--figure",
		filepath.Join(t.TempDir(), "figure.svg")}
	if testing.Short() {
		args = append(args, "--scan", "1s", "--trace", "2s", "--window", "1s")
	}
	r := cli.JSON[struct {
		GuestPages uint64 `json:"guest_pages"`
		Methods    []method
	}](t, args...)
	by := map[string]method{}
	for _, m := range r.Methods {
		by[m.Method] = m
	}
	if r.GuestPages != 256<<20/4096 || len(by) < 3 {
		t.Fatalf("%+v", r)
	}
	eager, lazy, trace := by["eager"], by["lazy"], by["trace"]
	if eager.Prefetched < r.GuestPages*9/10 || eager.Prefetched > r.GuestPages ||
		eager.Skipped != nil || eager.Lazy != nil {
		t.Errorf("eager: %+v", eager)
	}
	if lazy.Prefetched != 0 || lazy.Skipped != nil || lazy.Lazy == nil || *lazy.Lazy == 0 {
		t.Errorf("lazy: %+v", lazy)
	}
	if trace.Prefetched == 0 || trace.Skipped == nil || trace.Lazy == nil || *trace.Lazy*5 > *lazy.Lazy {
		t.Errorf("trace: %+v", trace)
	}
}
