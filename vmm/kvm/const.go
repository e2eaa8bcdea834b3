package kvm

import "fmt"

// request is an ioctl of linux/kvm.h: its number on x86-64, which includes the size of the argument,
// and its name.
type request struct {
	number uintptr
	name   string
}

var (
	ioGetAPIVersion       = request{0xae00, "KVM_GET_API_VERSION"}
	ioCreateVM            = request{0xae01, "KVM_CREATE_VM"}
	ioGetMSRIndexList     = request{0xc004ae02, "KVM_GET_MSR_INDEX_LIST"}
	ioCheckExtension      = request{0xae03, "KVM_CHECK_EXTENSION"}
	ioGetVCPUMmapSize     = request{0xae04, "KVM_GET_VCPU_MMAP_SIZE"}
	ioGetSupportedCPUID   = request{0xc008ae05, "KVM_GET_SUPPORTED_CPUID"}
	ioCreateVCPU          = request{0xae41, "KVM_CREATE_VCPU"}
	ioSetUserMemoryRegion = request{0x4020ae46, "KVM_SET_USER_MEMORY_REGION"}
	ioSetTSSAddr          = request{0xae47, "KVM_SET_TSS_ADDR"}
	ioSetIdentityMapAddr  = request{0x4008ae48, "KVM_SET_IDENTITY_MAP_ADDR"}
	ioCreateIRQChip       = request{0xae60, "KVM_CREATE_IRQCHIP"}
	ioIRQLine             = request{0x4008ae61, "KVM_IRQ_LINE"}
	ioGetIRQChip          = request{0xc208ae62, "KVM_GET_IRQCHIP"}
	ioSetIRQChip          = request{0x8208ae63, "KVM_SET_IRQCHIP"} // as in the header, though it only reads
	ioCreatePIT2          = request{0x4040ae77, "KVM_CREATE_PIT2"}
	ioSetClock            = request{0x4030ae7b, "KVM_SET_CLOCK"}
	ioGetClock            = request{0x8030ae7c, "KVM_GET_CLOCK"}
	ioRun                 = request{0xae80, "KVM_RUN"}
	ioGetRegs             = request{0x8090ae81, "KVM_GET_REGS"}
	ioSetRegs             = request{0x4090ae82, "KVM_SET_REGS"}
	ioGetSregs            = request{0x8138ae83, "KVM_GET_SREGS"}
	ioSetSregs            = request{0x4138ae84, "KVM_SET_SREGS"}
	ioGetMSRs             = request{0xc008ae88, "KVM_GET_MSRS"}
	ioSetMSRs             = request{0x4008ae89, "KVM_SET_MSRS"}
	ioSetSignalMask       = request{0x4004ae8b, "KVM_SET_SIGNAL_MASK"}
	ioGetLAPIC            = request{0x8400ae8e, "KVM_GET_LAPIC"}
	ioSetLAPIC            = request{0x4400ae8f, "KVM_SET_LAPIC"}
	ioSetCPUID2           = request{0x4008ae90, "KVM_SET_CPUID2"}
	ioGetCPUID2           = request{0xc008ae91, "KVM_GET_CPUID2"}
	ioGetMPState          = request{0x8004ae98, "KVM_GET_MP_STATE"}
	ioSetMPState          = request{0x4004ae99, "KVM_SET_MP_STATE"}
	ioGetVCPUEvents       = request{0x8040ae9f, "KVM_GET_VCPU_EVENTS"}
	ioSetVCPUEvents       = request{0x4040aea0, "KVM_SET_VCPU_EVENTS"}
	ioGetPIT2             = request{0x8070ae9f, "KVM_GET_PIT2"}
	ioSetPIT2             = request{0x4070aea0, "KVM_SET_PIT2"}
	ioGetDebugRegs        = request{0x8080aea1, "KVM_GET_DEBUGREGS"}
	ioSetDebugRegs        = request{0x4080aea2, "KVM_SET_DEBUGREGS"}
	ioSetTSCKHz           = request{0xaea2, "KVM_SET_TSC_KHZ"}
	ioGetTSCKHz           = request{0xaea3, "KVM_GET_TSC_KHZ"}
	ioGetXSave            = request{0x9000aea4, "KVM_GET_XSAVE"}
	ioSetXSave            = request{0x5000aea5, "KVM_SET_XSAVE"}
	ioGetXCRs             = request{0x8188aea6, "KVM_GET_XCRS"}
	ioSetXCRs             = request{0x4188aea7, "KVM_SET_XCRS"}
	ioKVMClockCtrl        = request{0xaead, "KVM_KVMCLOCK_CTRL"}
	ioGetStatsFD          = request{0xaece, "KVM_GET_STATS_FD"}
	ioGetXSave2           = request{0x9000aecf, "KVM_GET_XSAVE2"}
)

// apiVersion is the result of KVM_GET_API_VERSION since 2007; any other is refused.
const apiVersion = 12

// Capability is an argument of KVM_CHECK_EXTENSION.
type Capability uintptr

// Capabilities that the VMM asks for.
const (
	CapUserMemory    Capability = 3
	CapExtCPUID      Capability = 7
	CapMPState       Capability = 14
	CapAdjustClock   Capability = 39 // the result is the flags that KVM_SET_CLOCK accepts
	CapVCPUEvents    Capability = 41
	CapXSave         Capability = 55
	CapMaxVCPUs      Capability = 66
	CapTSCDeadline   Capability = 72
	CapImmediateExit Capability = 136
	CapXSave2        Capability = 208
)

// ExitReason says why KVM_RUN returned.
type ExitReason uint32

// Exit reasons that the VMM handles.
const (
	ExitIO            ExitReason = 2
	ExitMMIO          ExitReason = 6
	ExitIRQWindowOpen ExitReason = 7
	ExitShutdown      ExitReason = 8
	ExitFailEntry     ExitReason = 9
	ExitIntr          ExitReason = 10
	ExitInternalError ExitReason = 17
	ExitMemoryFault   ExitReason = 39
)

var exitNames = map[ExitReason]string{
	0: "unknown", 1: "exception", ExitIO: "port I/O", 3: "hypercall", 4: "debug", 5: "halt",
	ExitMMIO: "memory-mapped I/O", ExitIRQWindowOpen: "interrupt window",
	ExitShutdown: "shutdown (triple fault)", ExitFailEntry: "failed entry", ExitIntr: "interrupted",
	ExitInternalError: "internal error", 24: "system event", ExitMemoryFault: "memory fault",
}

func (r ExitReason) String() string {
	if s, ok := exitNames[r]; ok {
		return s
	}
	return fmt.Sprintf("exit reason %d", uint32(r))
}
