package linux

import (
	"fmt"
	"io"
	"strings"

	"github.com/thawfs/thaw/vmm/kvm"
)

// Config says what to boot and where.
type Config struct {
	Kernel  *io.SectionReader // bzImage or ELF vmlinux
	Initrd  *io.SectionReader // nil: none
	Cmdline string

	RAM  []Range // guest memory; the first range begins at 0 and is larger than 1 MiB
	RSDP uint64  // address of the ACPI root pointer; 0: no ACPI
}

// Entry is the state of the vCPU that enters the kernel; the others wait for their startup interrupt.
// The interrupt descriptor table is empty, so the kernel must be entered with interrupts off.
type Entry struct {
	Regs  kvm.Regs
	Sregs kvm.Sregs // without the base of the local APIC, which KVM has set

	Kernel Range // memory that the kernel uses from its first instruction on
	Initrd Range // zero: there is none
}

// Addresses of the boot data, all below 1 MiB and in RAM.
const (
	gdtAddr      = 0x500
	taskAddr     = 0x600
	zeroPageAddr = 0x7000
	stackTop     = 0x8ff0
	tablesAddr   = 0x9000
	cmdlineAddr  = 0x2_0000

	maxCmdline = 2048 // bytes, with the 0 at its end

	mib = 1 << 20
	gib = 1 << 30
)

// Load writes kernel, initrd, command line, zero page, GDT and page tables into guest memory. The
// memory must be zero before: Load does not write zeros where the kernel expects them.
func Load(mem io.WriterAt, c Config) (Entry, error) {
	m, err := newMemoryMap(c.RAM)
	if err != nil {
		return Entry{}, err
	}
	k, err := parseKernel(c.Kernel)
	if err != nil {
		return Entry{}, fmt.Errorf("kernel: %w", err)
	}
	if err := k.place(m); err != nil {
		return Entry{}, err
	}
	initrd, err := placeInitrd(c.Initrd, k, m)
	if err != nil {
		return Entry{}, err
	}
	zero, err := zeroPage(k, m, initrd, c)
	if err != nil {
		return Entry{}, err
	}
	if err := k.write(mem); err != nil {
		return Entry{}, fmt.Errorf("load kernel: %w", err)
	}
	if initrd.Size > 0 {
		if err := copyTo(mem, initrd.Start, c.Initrd); err != nil {
			return Entry{}, fmt.Errorf("load initrd: %w", err)
		}
	}
	e := Entry{Sregs: longMode(), Kernel: k.memory, Initrd: initrd}
	e.Regs = kvm.Regs{RIP: k.memory.Start + k.entry, RSI: zeroPageAddr, RSP: stackTop,
		RFLAGS: kvm.RFLAGSFixed}
	for _, p := range []struct {
		addr int64
		data []byte
	}{
		{gdtAddr, descriptors(e.Sregs)}, {taskAddr, make([]byte, taskSize)}, {tablesAddr, identityMap()},
		{zeroPageAddr, zero}, {cmdlineAddr, append([]byte(c.Cmdline), 0)},
	} {
		if _, err := mem.WriteAt(p.data, p.addr); err != nil {
			return Entry{}, fmt.Errorf("write boot data to %#x: %w", p.addr, err)
		}
	}
	return e, nil
}

// checkCmdline refuses a command line that the kernel would truncate or misread.
func checkCmdline(s string, kernelMax int) error {
	if n := min(maxCmdline-1, kernelMax); len(s) > n {
		return fmt.Errorf("the command line has %d bytes, and this kernel accepts at most %d", len(s), n)
	}
	if i := strings.IndexAny(s, "\x00\n\r"); i >= 0 {
		return fmt.Errorf("the command line has the byte %#02x at offset %d, and must be one line of text", s[i], i)
	}
	return nil
}

// copyTo copies a file, or a part of one, into guest memory. It fails if the file has become shorter
// since its size was read.
func copyTo(mem io.WriterAt, addr uint64, r *io.SectionReader) error {
	size := r.Size()
	if size == 0 {
		return nil
	}
	buf := make([]byte, min(size, mib)) // large, because each write is a system call
	from := io.NewSectionReader(r, 0, size)
	n, err := io.CopyBuffer(io.NewOffsetWriter(mem, int64(addr)), from, buf)
	if err == nil && n < size {
		err = fmt.Errorf("%d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	return err
}

// mibUp returns a size in MiB, rounded up, for messages.
func mibUp(bytes uint64) uint64 { return bytes/mib + min(bytes%mib, 1) }
