package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/proc"
	"github.com/thawfs/thaw/vmm/acpi"
	"github.com/thawfs/thaw/vmm/linux"
)

// Ports of the tables. What is written to a port with isa-debug-exit is half of QEMU's status.
const (
	sleepControlPort = 0x600
	sleepStatusPort  = 0x601
	resetPort        = 0x602

	poweredOff = acpi.PowerOff<<1 | 1
	wasReset   = acpi.ResetValue<<1 | 1

	holeStart, holeEnd = 3 << 30, 4 << 30
	genID              = 0xf_e000
	eventGSI           = 9
)

// machine is what is booted.
type machine struct {
	qemu, kernel string
	initrd       []byte
	cmdline      string
	cpus         int
	memory       uint64 // bytes
	disk         string // a file
}

func (m machine) ram() []linux.Range {
	if m.memory <= holeStart {
		return []linux.Range{{Size: m.memory}}
	}
	return []linux.Range{{Size: holeStart}, {Start: holeEnd, Size: m.memory - holeStart}}
}

// tables describes QEMU's microvm. Of its eight virtio-mmio places the one whose interrupt is the
// event device's is left out. Devices get the last place first.
func (m machine) tables() acpi.Config {
	c := acpi.Config{
		Base: romBase, Size: genID - romBase,
		CPUs: m.cpus, LocalAPIC: 0xfee0_0000, IOAPIC: 0xfec0_0000, TimerGSI: 2,
		Serial: acpi.Ports{Base: 0x3f8, GSI: 4}, Keyboard: acpi.Ports{Base: 0x60, GSI: 1},
		SleepControl: sleepControlPort, SleepStatus: sleepStatusPort, Reset: resetPort,
		VMGenID: genID, EventGSI: eventGSI,
	}
	for i := range uint32(8) {
		if gsi := 5 + i; gsi != eventGSI {
			c.Virtio = append(c.Virtio, acpi.MMIO{Base: 0xfeb0_0000 + i*0x200, Size: 0x200, GSI: gsi})
		}
	}
	return c
}

// ramFile is guest memory in QEMU's file, which has no hole.
type ramFile struct{ f *os.File }

func (r ramFile) WriteAt(p []byte, off int64) (int, error) {
	if off >= holeEnd {
		off -= holeEnd - holeStart
	}
	return r.f.WriteAt(p, off)
}

// prepare makes the files of RAM and ROM.
func (m machine) prepare(t *testing.T, ram, firmware string) linux.Entry {
	t.Helper()
	f, err := os.Create(ram)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(m.memory)); err != nil {
		t.Fatal(err)
	}
	kernel, err := os.Open(m.kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	info, err := kernel.Stat()
	if err != nil {
		t.Fatal(err)
	}
	e, err := linux.Load(ramFile{f}, linux.Config{
		Kernel:  io.NewSectionReader(kernel, 0, info.Size()),
		Initrd:  io.NewSectionReader(strings.NewReader(string(m.initrd)), 0, int64(len(m.initrd))),
		Cmdline: m.cmdline, RAM: m.ram(), RSDP: romBase,
	})
	if err != nil {
		t.Fatal(err)
	}
	tables, err := acpi.Build(m.tables())
	if err != nil {
		t.Fatal(err)
	}
	b, err := rom(tables, e)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(firmware, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return e
}

// run boots the machine and waits for its end. It gives what was printed, and QEMU's status.
func (m machine) run(t *testing.T) (console string, status int) {
	t.Helper()
	dir := t.TempDir()
	ram, firmware := filepath.Join(dir, "ram"), filepath.Join(dir, "rom")
	e := m.prepare(t, ram, firmware)
	t.Logf("entry %#x, kernel %#x, initrd %#x", e.Regs.RIP, e.Kernel, e.Initrd)
	ends := func(port int) string { return fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=1", port) }
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg",
		"-machine", "microvm,acpi=off,rtc=off,auto-kernel-cmdline=off,memory-backend=ram",
		"-object", fmt.Sprintf("memory-backend-file,id=ram,size=%d,mem-path=%s,share=off", m.memory, ram),
		"-m", fmt.Sprintf("%dM", m.memory>>20), "-smp", fmt.Sprint(m.cpus), "-bios", firmware,
		"-device", fmt.Sprintf("loader,addr=%#x,cpu-num=0", firstIP),
		"-device", ends(sleepControlPort), "-device", ends(resetPort), "-serial", "stdio"}
	if m.disk != "" {
		args = append(args, "-drive", "if=none,id=d,format=raw,file="+m.disk,
			"-device", "virtio-blk-device,drive=d")
	}
	out := &strings.Builder{}
	cmd := exec.Command(m.qemu, args...)
	cmd.Stdout, cmd.Stderr = out, out
	p, err := proc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	switch err := p.Wait(2 * time.Minute); {
	case errors.As(err, &exit):
		return out.String(), exit.ExitCode()
	case err != nil:
		if killed := p.Kill(10 * time.Second); killed != nil {
			t.Fatal(killed)
		}
		t.Fatalf("%v; console:\n%s", err, out)
	}
	return out.String(), 0
}
