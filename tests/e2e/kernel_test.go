package e2e

import (
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
	g := kernelGuest{kernel: filepath.Join(dir, "vmlinux"), initrd: filepath.Join(dir, "initrd"),
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
	gaveUp      = regexp.MustCompile(`KVM gave up .*\(rip (0x[0-9a-f]+)`)
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

// kernelMoments are lines at which a boot is saved: before and after memory is set up, in user space,
// between two rounds of the workload.
func kernelMoments() []string {
	return []string{"BIOS-provided physical RAM map", "Booting paravirtualized kernel",
		"percpu: Embedded", "Run /init as init process", "round 2 ", "round 4 "}
}

// TestKernelInMidBoot boots Debian's kernel with two CPUs, undisturbed and saved at several moments,
// and lets each checkpoint go on from a mount: all come to the same end. With hardware
// virtualisation that is a workload whose hashes are right, and power-off; a KVM in software, which
// interprets kernels, gives up in the middle of the boot, always at the same instruction.
func TestKernelInMidBoot(t *testing.T) {
	g := kernelFiles(t)
	g.cpus = 2
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	alone := g.boot(t, in("undisturbed"))
	m := g.boot(t, in("saved"))
	var saved []string
	for _, mark := range kernelMoments() {
		if !awaitLine(t, m, in("saved"), mark) {
			break
		}
		name := fmt.Sprint("moment", len(saved))
		cli.OK(t, "vm", "checkpoint", m.sock, in(name))
		saved = append(saved, name)
	}
	undisturbed := g.end(t, alone, in("undisturbed"))
	whole := g.checkEnd(t, undisturbed)
	if len(saved) < 3 || whole && len(saved) < len(kernelMoments()) {
		t.Errorf("saved at %d moments", len(saved))
	}
	sameEnd(t, "the machine that was saved", g.end(t, m, in("saved")), undisturbed)

	store := in("store")
	for _, name := range saved {
		cli.OK(t, "import", store, in(name), "--name", name)
	}
	mnt := cli.Mount(t, store, "--restore=lazy")
	names := append(saved, saved[len(saved)-1]) // the last one twice
	var restored []*machine
	for i, name := range names {
		restored = append(restored, startMachine(t, "restore", mnt.Path(name), "--console",
			in(fmt.Sprint("restored", i))))
	}
	var ends []kernelEnd
	for i, m := range restored {
		ends = append(ends, g.end(t, m, in(fmt.Sprint("restored", i))))
		sameEnd(t, "the one from "+names[i], ends[i], undisturbed)
	}
	if whole {
		differentNumbers(t, ends[len(ends)-2].random(), ends[len(ends)-1].random())
	}
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

// differentNumbers: twins of one checkpoint do not share their random numbers.
func differentNumbers(t *testing.T, a, b []string) {
	t.Helper()
	if len(a) == 0 || slices.ContainsFunc(a, func(l string) bool { return slices.Contains(b, l) }) {
		t.Errorf("random numbers of twins: %q and %q", a, b)
	}
}

// awaitLine waits until a machine has printed a line that begins so; false: it ended before.
func awaitLine(t *testing.T, m *machine, console, prefix string) bool {
	t.Helper()
	timeout := time.After(kernelLimit)
	for {
		if slices.ContainsFunc(consoleLines(t, console), func(l string) bool {
			return strings.HasPrefix(l, prefix)
		}) {
			return true
		}
		select {
		case <-m.proc.Done():
			return false
		case <-timeout:
			t.Fatalf("%q does not come", prefix)
		case <-time.After(20 * time.Millisecond): // between two looks
		}
	}
}
