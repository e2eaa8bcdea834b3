package boot

import (
	"encoding/binary"
	"fmt"

	"github.com/thawfs/thaw/vmm/acpi"
	"github.com/thawfs/thaw/vmm/linux"
)

var le = binary.LittleEndian

// The ROM has 128 KiB. QEMU shows it twice: up to 4 GiB, where a CPU begins, and from 0xe0000 to
// 1 MiB, where ACPI tables belong and a kernel that wants to restart jumps to the BIOS.
const (
	romSize = 128 << 10
	romBase = 1<<20 - romSize

	codeOffset  = romSize - 256
	tableOffset = romSize - 32 // the value for the GDT register

	// firstIP is where QEMU is told to begin: the CPU's code segment begins 64 KiB below 4 GiB.
	firstIP = codeOffset & 0xffff
)

// rom has the tables, the code that enters the kernel, and the one that restarts.
func rom(tables []byte, e linux.Entry) ([]byte, error) {
	code := enter(e)
	if len(tables) > codeOffset || codeOffset+len(code) > tableOffset {
		return nil, fmt.Errorf("%d bytes of tables, %d of code: no room", len(tables), len(code))
	}
	b := make([]byte, romSize)
	copy(b, tables)
	copy(b[codeOffset:], code)
	le.PutUint16(b[tableOffset:], e.Sregs.GDT.Limit)
	le.PutUint32(b[tableOffset+2:], uint32(e.Sregs.GDT.Base))
	copy(b[acpi.RestartAddr-romBase:], acpi.Restart(resetPort))
	return b, nil
}

// enter is code for real mode that ends in the kernel. The page tables map the ROM below 4 GiB to
// itself, so that it can go on after it has switched paging on. The task register stays as it is
// after a reset: the descriptor says busy, as for a CPU that has it loaded, and cannot be loaded
// once more.
func enter(e linux.Entry) (b []byte) {
	const (
		wide     = 0x66 // prefix: operands of 32 bits
		fromCode = 0x2e // prefix: the code segment
		msrEFER  = 0xc000_0080
		active   = 1 << 10 // long mode, which becomes active by paging
	)
	load32 := func(opcode byte, v uint64) { b = le.AppendUint32(append(b, wide, opcode), uint32(v)) }
	eax := func(v uint64) { load32(0xb8, v) }
	code := func(c ...byte) { b = append(b, c...) }

	code(0xfa)                             // cli
	code(fromCode, wide, 0x0f, 0x01, 0x16) // lgdt cs:[table]
	b = le.AppendUint16(b, tableOffset&0xffff)
	eax(e.Sregs.CR4)
	code(0x0f, 0x22, 0xe0) // mov cr4, eax
	eax(e.Sregs.CR3)
	code(0x0f, 0x22, 0xd8)      // mov cr3, eax
	load32(0xb9, msrEFER)       // mov ecx
	code(wide, 0x31, 0xd2)      // xor edx, edx
	eax(e.Sregs.EFER &^ active) //
	code(0x0f, 0x30)            // wrmsr
	eax(e.Sregs.CR0)            //
	code(0x0f, 0x22, 0xc0)      // mov cr0, eax
	b = append(b, 0xb8)         // mov ax, data segment
	b = le.AppendUint16(b, e.Sregs.DS.Selector)
	for _, segment := range []byte{0, 2, 3, 4, 5} { // ES, SS, DS, FS, GS
		code(0x8e, 0xc0|segment<<3) // mov segment, ax
	}
	load32(0xbe, e.Regs.RSI)    // mov esi
	load32(0xbc, e.Regs.RSP)    // mov esp
	load32(0x68, e.Regs.RFLAGS) // push
	code(wide, 0x9d)            // popfd
	load32(0xea, e.Regs.RIP)    // jmp code segment:RIP
	return le.AppendUint16(b, e.Sregs.CS.Selector)
}
