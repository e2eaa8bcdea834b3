package boot

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/thawfs/thaw/tests/internal/race"
	"github.com/thawfs/thaw/tests/qemu"

	_ "embed"
)

// cmdline has the frequency of the TSC because QEMU's CPU, unlike KVM, has nothing to tell it by,
// and the tables say that there is no PIT to measure it with. A wrong one makes time run wrong,
// and nothing else.
const cmdline = "console=ttyS0 ignore_loglevel panic=-1 tsc_early_khz=2000000"

func tools(t *testing.T) qemu.Tools {
	t.Helper()
	race.SkipSlow(t)
	found, err := qemu.Find()
	var missing *qemu.MissingError
	if errors.As(err, &missing) {
		t.Skip(missing)
	}
	return found
}

// TestBzImage boots with two CPUs and a disk to a shell script, and switches the machine off.
func TestBzImage(t *testing.T) {
	found := tools(t)
	disk := filepath.Join(t.TempDir(), "disk")
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.N(256))
	}
	if err := os.WriteFile(disk, data, 0o644); err != nil {
		t.Fatal(err)
	}
	m := machine{qemu: found.QEMU, kernel: found.Kernel, cmdline: cmdline, cpus: 2, memory: 512 << 20,
		initrd: initramfs(t, found), disk: disk}
	console, status := m.run(t)
	if status != poweredOff {
		t.Errorf("QEMU ended with status %d, not with that of the sleep control register, %d", status,
			poweredOff)
	}
	checkConsole(t, console, []string{
		`BIOS-e820: \[mem 0x0000000000100000-0x000000001fffffff\] usable`,
		`smpboot: Allowing 2 CPUs, 0 hotplug CPUs`,
		`^cpus 2`,
		fmt.Sprintf(`^disk %x`, sha1.Sum(data)),
		`^interrupt \d+: .* IO-APIC +12-fasteoi +virtio0`,
	})
}

// TestVmlinux boots the same kernel without its decompressor, with memory above 4 GiB, and resets
// the machine.
func TestVmlinux(t *testing.T) {
	found := tools(t)
	kernel := filepath.Join(t.TempDir(), "vmlinux")
	if err := found.WriteVmlinux(kernel); err != nil {
		t.Skipf("needs a kernel whose compression is known here: %v", err)
	}
	m := machine{qemu: found.QEMU, kernel: kernel, cmdline: cmdline + " test=reset",
		cpus: 1, memory: 4 << 30, initrd: initramfs(t, found)}
	console, status := m.run(t)
	if status != wasReset {
		t.Errorf("QEMU ended with status %d, not with that of the reset register, %d", status, wasReset)
	}
	checkConsole(t, console, []string{
		`BIOS-e820: \[mem 0x0000000000100000-0x00000000bfffffff\] usable`,
		`BIOS-e820: \[mem 0x0000000100000000-0x000000013fffffff\] usable`,
		`^iomem 100000000-13fffffff : System RAM`,
		`smpboot: Allowing 1 CPUs, 0 hotplug CPUs`,
		`^cpus 1`,
	})
}

//go:embed init.sh
var initScript []byte

// initramfs has the script and the modules for a disk.
func initramfs(t *testing.T, tools qemu.Tools) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tools.WriteSystem(&b, initScript, "virtio_mmio", "virtio_blk"); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkConsole looks for what a kernel says that took memory map and tables as they are meant.
func checkConsole(t *testing.T, console string, more []string) {
	t.Helper()
	lines := strings.Split(strings.ReplaceAll(console, "\r", ""), "\n")
	for i, l := range lines {
		lines[i] = regexp.MustCompile(`^\[ *\d+\.\d+\] `).ReplaceAllString(l, "")
	}
	for _, want := range append(more,
		`BIOS-e820: \[mem 0x0000000000000000-0x000000000009fbff\] usable`,
		`BIOS-e820: \[mem 0x000000000009fc00-0x000000000009ffff\] reserved`,
		`BIOS-e820: \[mem 0x00000000000e0000-0x00000000000fffff\] reserved`,
		`ACPI: RSDP 0x00000000000E0000 000024 \(v02 THAW  \)`,
		`ACPI: XSDT 0x`, `ACPI: FACP 0x`, `ACPI: DSDT 0x`, `ACPI: APIC 0x`,
		`IOAPIC\[0\]: apic_id 0, version \d+, address 0xfec00000, GSI 0-23`,
		`ACPI: INT_SRC_OVR \(bus 0 bus_irq 0 global_irq 2 dfl dfl\)`,
		`ACPI: 1 ACPI AML tables successfully acquired and loaded`,
		`ACPI: Using IOAPIC for interrupt routing`,
		`ACPI: PM: \(supports S0 S5\)`,
		`ttyS0 at I/O 0x3f8 \(irq = \d+, base_baud = 115200\) is a 16550A`,
		`i8042: PNP: PS/2 Controller \[PNP0303:PS2K\] at 0x60,0x64`,
		`Run /init as init process`,
		`^acpi \\_SB_\.COM1 acpi:PNP0501:`,
		`^acpi \\_SB_\.V006 acpi:LNRO0005:`,
		`^acpi \\_SB_\.GED_ acpi:ACPI0013:`,
		`^acpi \\_SB_\.VGEN acpi:THAW0001:VM_GEN_COUNTER:`, // as Linux' driver looks for it
		`^iomem feb00e00-feb00fff : LNRO0005`,
		`^interrupt \d+: .* IO-APIC +4-edge +ttyS0`,
		`^interrupt \d+: .* IO-APIC +9-edge +ACPI:Ged`,
	) {
		if !slices.ContainsFunc(lines, regexp.MustCompile(want).MatchString) {
			t.Errorf("the console lacks %s", want)
		}
	}
	bad := regexp.MustCompile(`ACPI (BIOS )?(Error|Warning|Exception)|Firmware (Bug|Warn)|BUG:|Oops`)
	for _, l := range lines {
		if bad.MatchString(l) {
			t.Errorf("the kernel says: %s", l)
		}
	}
	if t.Failed() {
		t.Logf("console:\n%s", console)
	}
}
