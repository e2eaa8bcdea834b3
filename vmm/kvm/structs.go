package kvm

// Regs mirrors struct kvm_regs.
type Regs struct {
	RAX, RBX, RCX, RDX uint64
	RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11   uint64
	R12, R13, R14, R15 uint64
	RIP, RFLAGS        uint64
}

// General returns the sixteen general registers, in the order of their fields.
func (r *Regs) General() [16]uint64 {
	return [16]uint64{r.RAX, r.RBX, r.RCX, r.RDX, r.RSI, r.RDI, r.RSP, r.RBP,
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15}
}

// Segment mirrors struct kvm_segment: a selector and the descriptor behind it.
type Segment struct {
	Base                         uint64
	Limit                        uint32
	Selector                     uint16
	Type, Present, DPL, DB, S, L uint8
	G, AVL, Unusable, Padding    uint8
}

// Dtable mirrors struct kvm_dtable.
type Dtable struct {
	Base    uint64
	Limit   uint16
	Padding [3]uint16
}

// Sregs mirrors struct kvm_sregs. InterruptBitmap has the bit of an interrupt that was injected but not
// yet taken.
type Sregs struct {
	CS, DS, ES, FS, GS, SS  Segment
	TR, LDT                 Segment
	GDT, IDT                Dtable
	CR0, CR2, CR3, CR4, CR8 uint64
	EFER                    uint64
	APICBase                uint64
	InterruptBitmap         [4]uint64
}

// XCR mirrors struct kvm_xcr.
type XCR struct {
	Index, Reserved uint32
	Value           uint64
}

// XCRs mirrors struct kvm_xcrs: the extended control registers. XCR0 says which parts of the XSAVE area
// the guest uses.
type XCRs struct {
	Count, Flags uint32
	XCRs         [16]XCR
	Padding      [16]uint64
}

// DebugRegs mirrors struct kvm_debugregs.
type DebugRegs struct {
	DB       [4]uint64
	DR6, DR7 uint64
	Flags    uint64
	Reserved [9]uint64
}

// MPState mirrors struct kvm_mp_state.
type MPState struct{ State uint32 }

// MPRunnable is the state of a vCPU that runs. The first vCPU of a machine begins with it. The others
// wait for INIT and SIPI from the first, if the machine has interrupt controllers.
const MPRunnable = 0

// VCPUEvents mirrors struct kvm_vcpu_events: exceptions, interrupts and NMIs that are pending or
// being injected.
type VCPUEvents struct {
	Exception struct {
		Injected, Nr, HasErrorCode, Pending uint8
		ErrorCode                           uint32
	}
	Interrupt  struct{ Injected, Nr, Soft, Shadow uint8 }
	NMI        struct{ Injected, Pending, Masked, Pad uint8 }
	SIPI       uint32
	Flags      uint32
	SMI        struct{ SMM, Pending, InsideNMI, LatchedInit uint8 }
	Triple     struct{ Pending uint8 }
	Reserved   [26]uint8
	HasPayload uint8
	Payload    uint64
}

// EventsHaveShadow in the Flags of VCPUEvents says that Interrupt.Shadow is valid: interrupts are
// blocked for the next instruction, as after STI and MOV to SS.
const (
	EventsHaveShadow = 4
	ShadowSTI        = 2
)

// MSREntry mirrors struct kvm_msr_entry: a model specific register and its value.
type MSREntry struct {
	Index, Reserved uint32
	Data            uint64
}

// CPUIDEntry mirrors struct kvm_cpuid_entry2: what one CPUID leaf answers.
type CPUIDEntry struct {
	Function, Index, Flags uint32
	EAX, EBX, ECX, EDX     uint32
	Padding                [3]uint32
}

// MemoryRegion mirrors struct kvm_userspace_memory_region. Size 0 deletes the slot.
type MemoryRegion struct {
	Slot, Flags               uint32
	GuestPhysAddr, MemorySize uint64 // bytes
	UserspaceAddr             uint64
}

// IO describes a port access that ended KVM_RUN.
type IO struct {
	Out   bool
	Port  uint16
	Size  int // bytes of one element: 1, 2 or 4
	Count int // elements; more than one for string instructions
}

// MMIO describes an access to a guest physical address without memory behind it.
type MMIO struct {
	Addr  uint64
	Write bool
}

// Bits of the control registers that the VMM sets or reads; Intel's manual, volume 3, 2.5 and 2.2.1.
const (
	CR0PE = 1 << 0
	CR0MP = 1 << 1
	CR0ET = 1 << 4
	CR0NE = 1 << 5
	CR0WP = 1 << 16
	CR0PG = 1 << 31

	CR4PAE        = 1 << 5
	CR4PGE        = 1 << 7 // global translations survive a change of CR3
	CR4OSFXSR     = 1 << 9
	CR4OSXMMEXCPT = 1 << 10
	CR4OSXSAVE    = 1 << 18

	RFLAGSFixed = 1 << 1 // always set
	RFLAGSIF    = 1 << 9 // interrupts are taken
	RFLAGSIOPL3 = 3 << 12

	EFERSCE = 1 << 0
	EFERLME = 1 << 8
	EFERLMA = 1 << 10
	EFERNXE = 1 << 11
)
