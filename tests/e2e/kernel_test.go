package e2e

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/race"
	"github.com/thawfs/thaw/tests/qemu"

	_ "embed"
)

//go:embed kernelinit.sh
var kernelInit []byte

// kernelGuest is a machine with Debian's kernel in thaw's own VMM.
type kernelGuest struct {
	kernel, initrd, disk string
	diskSum              string
	cpus                 int
}

// kernelFiles makes the files of such a machine. The kernel is without its decompressor, which a KVM
// that interprets kernels would take a minute for.
func kernelFiles(t *testing.T) kernelGuest {
	t.Helper()
	race.SkipSlow(t)
	needKVM(t)
	cli.NeedFUSE(t)
	tools, err := qemu.FindGuest()
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	g := kernelGuest{cpus: 2, kernel: filepath.Join(dir, "vmlinux"), initrd: filepath.Join(dir, "initrd"),
		disk: filepath.Join(dir, "disk")}
	if err := tools.WriteVmlinux(g.kernel); err != nil {
		t.Skipf("needs a kernel whose compression is known here: %v", err)
	}
	f, err := os.Create(g.initrd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = tools.WriteSystem(f, kernelInit, "virtio_mmio", "virtio_blk", "virtio-rng")
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 2<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	g.diskSum = fmt.Sprintf("%x", sha1.Sum(data))
	if err := os.WriteFile(g.disk, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return g
}

// kernelCmdline: without random addresses, so that where a kernel ends can be compared; QEMU's processor
// does not let KVM see what the guest does to its extended registers (package nested).
const kernelCmdline = "console=ttyS0 earlyprintk=serial,ttyS0,115200 nokaslr " +
	"noxsave ignore_loglevel panic=-1"

// boot starts the machine; its console is the file.
func (g kernelGuest) boot(t *testing.T, console string) *machine {
	t.Helper()
	return startMachine(t, "run", "--kernel", g.kernel, "--initrd", g.initrd, "--disk", g.disk+",ro",
		"--memory", "128MiB", "--cpus", fmt.Sprint(g.cpus), "--cmdline", kernelCmdline, "--console", console)
}

// kernelEnd is how a kernel's machine ended: switched off, or where KVM gave up.
type kernelEnd struct {
	lines  []string // of the console
	status int
	where  string // the instruction, if KVM gave up
}

var (
	kernelStamp = regexp.MustCompile(`^\[ *\d+\.\d+\] `)
	gaveUp      = regexp.MustCompile(`KVM could not run the guest .*\(rip (0x[0-9a-f]+)`)
)

// kernelLimit is for a boot, or what is left of one.
const kernelLimit = 10 * time.Minute

// end waits for the end of a machine whose console is the file.
func (g kernelGuest) end(t *testing.T, m *machine, console string) (e kernelEnd) {
	t.Helper()
	e.status = m.wait(kernelLimit)
	e.lines = consoleLines(t, console)
	if at := gaveUp.FindStringSubmatch(m.messages()); at != nil {
		e.where = at[1]
	}
	return e
}

// consoleLines are the complete lines that were printed, without the time in front.
func consoleLines(t *testing.T, path string) (lines []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(strings.ReplaceAll(string(data), "\r", "")) {
		if whole, ok := strings.CutSuffix(line, "\n"); ok {
			lines = append(lines, kernelStamp.ReplaceAllString(whole, ""))
		}
	}
	return lines
}

// workload picks the lines of the guest's own that are the same in every run.
func (e kernelEnd) workload() (lines []string) {
	for _, l := range e.lines {
		if strings.HasPrefix(l, "round ") || strings.HasPrefix(l, "done ") {
			lines = append(lines, l)
		}
	}
	return lines
}

func (e kernelEnd) random() (lines []string) {
	for _, l := range e.lines {
		if strings.HasPrefix(l, "random ") {
			lines = append(lines, l)
		}
	}
	return lines
}

func (e kernelEnd) last() string {
	if len(e.lines) == 0 {
		return ""
	}
	return e.lines[len(e.lines)-1]
}

// sameEnd requires that a machine which went on from a checkpoint came to the same end: the last
// line, the instruction if KVM gave up there, and the results of the workload that were to come.
func sameEnd(t *testing.T, what string, got, want kernelEnd) {
	t.Helper()
	w, rest := want.workload(), got.workload()
	if got.status != want.status || got.last() != want.last() || got.where != want.where ||
		len(rest) > len(w) || !slices.Equal(rest, w[len(w)-len(rest):]) {
		t.Errorf("%s ended with status %d at %q after %q; undisturbed it is %d at %q after %q; console:\n%s",
			what, got.status, got.where, got.last(), want.status, want.where, want.last(),
			strings.Join(got.lines, "\n"))
	}
}

// kernelMoment is a line of the console at which a boot is saved.
type kernelMoment struct {
	line string
	// early: there are others close by, which are enough where all of a boot is to be waited for.
	early bool
}

// kernelMoments are in the kernel's first work, before it starts user space, and in the workload.
func kernelMoments() []kernelMoment {
	return []kernelMoment{{"Booting paravirtualized kernel", false}, {"percpu: Embedded", true},
		{"mem auto-init", true}, {"Run /init as init process", false}, {"round 3 ", false}}
}

// TestKernelInMidBoot boots Debian's kernel with two CPUs, undisturbed and saved at several moments,
// and lets checkpoints go on from a mount: all come to the same end. With hardware virtualisation
// that is a workload whose hashes are right, and power-off; a KVM in software, which interprets
// kernels, gives up in the middle of the boot, always at the same instruction. There a boot takes 40 s
// of a CPU.
func TestKernelInMidBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a kernel, of which this host may interpret each instruction: not with -short")
	}
	g := kernelFiles(t)
	end := g.undisturbed(t)
	if runtime.NumCPU() == 1 {
		end() // one after the other
	}
	finish, saved := g.saved(t, kernelMoments())
	whole := g.checkEnd(t, finish())
	undisturbed := end()
	sameEnd(t, "the machine that was saved", finish(), undisturbed)
	if len(saved) < 3 || whole && len(saved) < len(kernelMoments()) {
		t.Errorf("saved at %d moments", len(saved))
	}
	if whole {
		saved = slices.DeleteFunc(saved, func(s savedKernel) bool { return s.early })
		saved = append(saved, saved[len(saved)-1]) // twins
	} else {
		saved = someOf(saved, 1)
	}
	ends := g.goOn(t, saved, undisturbed)
	if whole {
		differentNumbers(t, ends[len(ends)-2].random(), ends[len(ends)-1].random())
	}
	if !whole {
		return
	}
	// With one CPU kernels go other ways in places.
	g.cpus = 1
	finish, saved = g.saved(t, []kernelMoment{{"Run /init as init process", false}})
	sameEnd(t, "the machine with one CPU", finish(), undisturbed)
	g.goOn(t, saved, undisturbed)
}

// undisturbed boots the machine. The function it gives waits for the end.
func (g kernelGuest) undisturbed(t *testing.T) (end func() kernelEnd) {
	t.Helper()
	console := filepath.Join(t.TempDir(), "console")
	m := g.boot(t, console)
	return sync.OnceValue(func() kernelEnd { return g.end(t, m, console) })
}

// savedKernel is a checkpoint of a boot.
type savedKernel struct {
	kernelMoment
	dir string
}

// saved boots the machine and saves it at some moments, as far as it comes. The function it gives
// waits for the end.
func (g kernelGuest) saved(t *testing.T, moments []kernelMoment) (end func() kernelEnd,
	list []savedKernel) {
	t.Helper()
	dir := t.TempDir()
	console := filepath.Join(dir, "console")
	m := g.boot(t, console)
	for i, moment := range moments {
		if !awaitLine(t, m, console, moment.line) {
			break
		}
		s := savedKernel{moment, filepath.Join(dir, fmt.Sprint("moment", i))}
		cli.OK(t, "vm", "checkpoint", m.sock, s.dir)
		list = append(list, s)
	}
	return sync.OnceValue(func() kernelEnd { return g.end(t, m, console) }), list
}

// goOn lets checkpoints go on from a mount, side by side as far as there are CPUs, up to the end
// that an undisturbed machine comes to.
func (g kernelGuest) goOn(t *testing.T, list []savedKernel, undisturbed kernelEnd) (ends []kernelEnd) {
	t.Helper()
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	for _, s := range slices.Compact(slices.Clone(list)) { // without twins
		cli.OK(t, "import", store, s.dir, "--name", filepath.Base(s.dir))
	}
	mnt := cli.Mount(t, store, "--restore=lazy")
	for part := range slices.Chunk(list, runtime.NumCPU()) {
		var machines []*machine
		var consoles []string
		for _, s := range part {
			consoles = append(consoles, filepath.Join(dir, fmt.Sprint("console", len(ends)+len(consoles))))
			machines = append(machines, startMachine(t, "restore", mnt.Path(filepath.Base(s.dir)),
				"--console", consoles[len(consoles)-1]))
		}
		for i, m := range machines {
			e := g.end(t, m, consoles[i])
			sameEnd(t, fmt.Sprintf("the one saved at %q", part[i].line), e, undisturbed)
			ends = append(ends, e)
		}
	}
	return ends
}

// checkEnd says whether a boot came to the end of the workload, which must then be right. The other
// end that is none of the machine's making is a KVM that gives up.
func (g kernelGuest) checkEnd(t *testing.T, e kernelEnd) (whole bool) {
	t.Helper()
	t.Logf("undisturbed: status %d, %d lines, the last %q %s", e.status, len(e.lines), e.last(), e.where)
	switch {
	case e.where != "":
		t.Logf("KVM interprets kernels here, and gives up at %s: no shell, no workload", e.where)
		return false
	case e.status != 0 || len(e.workload()) != 7 || !slices.Contains(e.lines, "disk "+g.diskSum+"  -") ||
		!slices.Contains(e.lines, fmt.Sprint("cpus ", g.cpus)):
		t.Fatalf("status %d, no workload:\n%s", e.status, strings.Join(e.lines, "\n"))
	}
	return true
}

// differentNumbers: twins of one checkpoint do not share their random numbers, but for those that the
// kernel's driver had asked for ahead (package device says what that means).
func differentNumbers(t *testing.T, a, b []string) {
	t.Helper()
	if len(a) < 3 || len(b) < 3 {
		t.Fatalf("random numbers of twins: %q and %q", a, b)
	}
	if slices.ContainsFunc(a[1:], func(l string) bool { return slices.Contains(b, l) }) {
		t.Errorf("random numbers of twins: %q and %q", a, b)
	}
}

// awaitLine waits until a machine has printed a line with some text; false: it ended before.
func awaitLine(t *testing.T, m *machine, console, text string) bool {
	t.Helper()
	timeout := time.After(kernelLimit)
	for {
		data, err := os.ReadFile(console)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(text)) {
			t.Logf("%q after %d bytes", text, len(data))
			return true
		}
		select {
		case <-m.proc.Done():
			return false
		case <-timeout:
			t.Fatalf("%q does not come; console:\n%s", text, data)
		case <-time.After(50 * time.Millisecond): // between two looks
		}
	}
}
