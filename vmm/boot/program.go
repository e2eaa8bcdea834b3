package boot

import (
	"encoding/binary"
	"io"

	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
)

// The task state segment is needed only for its bitmap, which lets ring 3 use the ports. I/O privilege
// level 3 in RFLAGS would do that, too, but a KVM that runs guests in ring 3 of the host (kvm_pvm) does
// not preserve it.
const (
	tssBase   = 0x8000
	tssBitmap = 0x68                   // directly after the fixed part of a 64-bit TSS
	tssPorts  = 0x520                  // ports below this are allowed; one bit each
	tssLimit  = tssBitmap + tssPorts/8 // with the byte of ones that ends a bitmap
)

func taskState() []byte {
	b := make([]byte, tssLimit+1)
	binary.LittleEndian.PutUint16(b[0x66:], tssBitmap)
	b[tssLimit] = 0xff
	return b
}

// EnterProgram sets up a vCPU as a kernel does for a user program: 64-bit mode, paging, and privilege
// level 3, so that the guest runs at native speed even if KVM has no hardware support and interprets
// privileged code. There is no IDT: an exception is a triple fault, and the VMM reports its address.
// All vCPUs begin at the same address, each with its number as the first argument and its own stack. No
// kernel sends them a SIPI, so they are made runnable here. root is the address of the uppermost page
// table.
func EnterProgram(k *kvm.VCPU, number int, root uint64) error {
	s, err := k.Sregs()
	if err != nil {
		return err
	}
	code := kvm.Segment{Limit: 0xffff_ffff, Selector: 0x33, Type: 0xb, Present: 1, DPL: 3, S: 1,
		L: 1, G: 1}
	data := kvm.Segment{Limit: 0xffff_ffff, Selector: 0x2b, Type: 0x3, Present: 1, DPL: 3, S: 1,
		DB: 1, G: 1}
	s.CS = code
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.TR = kvm.Segment{Base: tssBase, Limit: tssLimit, Selector: 0x40, Type: 0xb, Present: 1}
	s.LDT = kvm.Segment{Unusable: 1}
	s.GDT, s.IDT = kvm.Dtable{}, kvm.Dtable{}
	s.CR0 = kvm.CR0PE | kvm.CR0MP | kvm.CR0ET | kvm.CR0NE | kvm.CR0WP | kvm.CR0PG
	s.CR3 = root
	s.CR4 = kvm.CR4PAE | kvm.CR4OSFXSR | kvm.CR4OSXMMEXCPT
	s.EFER = kvm.EFERSCE | kvm.EFERLME | kvm.EFERLMA | kvm.EFERNXE
	features, err := extendedState(k)
	if err != nil {
		return err
	}
	if features != 0 {
		s.CR4 |= kvm.CR4OSXSAVE
	}
	if err := k.SetSregs(s); err != nil {
		return err
	}
	if features != 0 {
		x := kvm.XCRs{Count: 1}
		x.XCRs[0].Value = features
		if err := k.SetXCRs(x); err != nil {
			return err
		}
	}
	if err := k.SetMPState(kvm.MPState{State: kvm.MPRunnable}); err != nil {
		return err
	}
	return k.SetRegs(kvm.Regs{RIP: guest.LoadAddr, RDI: uint64(number),
		RSP: guest.StackTop - uint64(number)*guest.StackSize, RFLAGS: kvm.RFLAGSFixed | kvm.RFLAGSIOPL3})
}

// extendedState returns the value for XCR0: x87, SSE and, if the CPU has it, AVX; 0: the CPU has no XSAVE.
func extendedState(k *kvm.VCPU) (uint64, error) {
	const x87, sse, avx = 1, 2, 4
	leaves, err := k.CPUID()
	if err != nil {
		return 0, err
	}
	var has bool
	var supported uint64
	for _, l := range leaves {
		switch {
		case l.Function == 1:
			has = l.ECX&(1<<26) != 0
		case l.Function == 0xd && l.Index == 0:
			supported = uint64(l.EAX) | uint64(l.EDX)<<32
		}
	}
	if !has {
		return 0, nil
	}
	return supported & (x87 | sse | avx), nil
}

// WriteProgram writes page tables, boot page, task state segment and program into memory, and returns
// the address of the uppermost page table.
func WriteProgram(mem io.WriterAt, regions []ram.Region, b guest.Boot, binary []byte) (root uint64,
	err error) {
	tables := layOutPageTables(regions)
	if err := tables.write(mem, regions); err != nil {
		return 0, err
	}
	for _, part := range []struct {
		addr int64
		data []byte
	}{{guest.BootAddr, b.Encode()}, {tssBase, taskState()}, {guest.LoadAddr, binary}} {
		if _, err := mem.WriteAt(part.data, part.addr); err != nil {
			return 0, err
		}
	}
	return tables.base[3], nil
}
