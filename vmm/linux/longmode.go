package linux

import (
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/wss/pagetable"
)

// Selectors of the boot protocol, __BOOT_CS, __BOOT_DS and, in Linux, __BOOT_TSS.
const (
	selCode = 0x10
	selData = 0x18
	selTask = 0x20

	typeCode    = 0xb // execute, read, accessed
	typeData    = 0x3 // read, write, accessed
	typeBusyTSS = 0xb

	gdtSize  = selTask + 16 // a descriptor of a system segment has 16 bytes in long mode
	taskSize = 0x68         // the fixed part of a 64-bit task state segment
)

// longMode returns the registers for 64-bit mode with flat segments and the identity map, at
// privilege level 0.
func longMode() kvm.Sregs {
	data := kvm.Segment{Selector: selData, Limit: 0xffff_ffff, Type: typeData, Present: 1, S: 1, DB: 1,
		G: 1}
	return kvm.Sregs{
		CS: kvm.Segment{Selector: selCode, Limit: 0xffff_ffff, Type: typeCode, Present: 1, S: 1, L: 1,
			G: 1},
		DS: data, ES: data, FS: data, GS: data, SS: data,
		TR: kvm.Segment{Selector: selTask, Base: taskAddr, Limit: taskSize - 1, Type: typeBusyTSS,
			Present: 1},
		LDT: kvm.Segment{Unusable: 1},
		GDT: kvm.Dtable{Base: gdtAddr, Limit: gdtSize - 1},
		CR0: kvm.CR0PE | kvm.CR0ET | kvm.CR0NE | kvm.CR0PG, CR3: tablesAddr, CR4: kvm.CR4PAE,
		EFER: kvm.EFERLME | kvm.EFERLMA,
	}
}

// descriptors returns the global descriptor table for the segments of a vCPU. The kernel reloads
// segment registers from it before it has its own table.
func descriptors(s kvm.Sregs) []byte {
	b := make([]byte, gdtSize)
	for _, s := range []kvm.Segment{s.CS, s.DS, s.TR} {
		le.PutUint64(b[s.Selector:], descriptor(s))
		if s.S == 0 {
			le.PutUint64(b[s.Selector+8:], s.Base>>32)
		}
	}
	return b
}

// descriptor encodes a segment as the CPU reads it: limit and base in parts, and the attribute bits.
func descriptor(s kvm.Segment) uint64 {
	limit := uint64(s.Limit)
	if s.G != 0 {
		limit >>= 12 // in pages
	}
	return limit&0xffff | s.Base&0xff_ffff<<16 | uint64(s.Type)<<40 | uint64(s.S)<<44 |
		uint64(s.Present)<<47 | limit>>16&0xf<<48 | uint64(s.L)<<53 | uint64(s.DB)<<54 |
		uint64(s.G)<<55 | s.Base>>24&0xff<<56
}

const largePage = 2 * mib

// identityMap returns page tables for the first 4 GiB with pages of 2 MiB: the root, one table of the
// next level, and a page directory for each GiB, one after the other from tablesAddr on. The protocol
// needs kernel, zero page and command line mapped at their physical addresses; as all of 4 GiB is
// mapped, they may be anywhere in it.
func identityMap() []byte {
	const directories = mapped / gib
	b := make([]byte, (2+directories)*pageSize)
	const flags = pagetable.Present | pagetable.Writable
	le.PutUint64(b, tablesAddr+pageSize|flags)
	for i := range uint64(directories) {
		le.PutUint64(b[pageSize+i*8:], tablesAddr+(2+i)*pageSize|flags)
	}
	for i := range uint64(directories * pagetable.Entries) {
		le.PutUint64(b[2*pageSize+i*8:], i*largePage|flags|pagetable.Large)
	}
	return b
}
