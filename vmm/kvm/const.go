package kvm

// Request numbers of linux/kvm.h for x86-64. The size of the argument is part of a number.
const (
	ioGetAPIVersion       = 0xae00
	ioCreateVM            = 0xae01
	ioGetMSRIndexList     = 0xc004ae02
	ioCheckExtension      = 0xae03
	ioGetVCPUMmapSize     = 0xae04
	ioGetSupportedCPUID   = 0xc008ae05
	ioCreateVCPU          = 0xae41
	ioSetUserMemoryRegion = 0x4020ae46
	ioSetTSSAddr          = 0xae47
	ioSetIdentityMapAddr  = 0x4008ae48
	ioCreateIRQChip       = 0xae60
	ioIRQLine             = 0x4008ae61
	ioGetIRQChip          = 0xc208ae62
	ioSetIRQChip          = 0x8208ae63 // the header's, though it reads
	ioCreatePIT2          = 0x4040ae77
	ioSetClock            = 0x4030ae7b
	ioGetClock            = 0x8030ae7c
	ioRun                 = 0xae80
	ioGetRegs             = 0x8090ae81
	ioSetRegs             = 0x4090ae82
	ioGetSregs            = 0x8138ae83
	ioSetSregs            = 0x4138ae84
	ioGetMSRs             = 0xc008ae88
	ioSetMSRs             = 0x4008ae89
	ioSetSignalMask       = 0x4004ae8b
	ioGetLAPIC            = 0x8400ae8e
	ioSetLAPIC            = 0x4400ae8f
	ioSetCPUID2           = 0x4008ae90
	ioGetCPUID2           = 0xc008ae91
	ioGetMPState          = 0x8004ae98
	ioSetMPState          = 0x4004ae99
	ioGetVCPUEvents       = 0x8040ae9f
	ioSetVCPUEvents       = 0x4040aea0
	ioGetPIT2             = 0x8070ae9f
	ioSetPIT2             = 0x4070aea0
	ioGetDebugRegs        = 0x8080aea1
	ioSetDebugRegs        = 0x4080aea2
	ioSetTSCKHz           = 0xaea2
	ioGetTSCKHz           = 0xaea3
	ioGetXSave            = 0x9000aea4
	ioSetXSave            = 0x5000aea5
	ioGetXCRs             = 0x8188aea6
	ioSetXCRs             = 0x4188aea7
	ioKVMClockCtrl        = 0xaead
	ioGetStatsFD          = 0xaece
	ioGetXSave2           = 0x9000aecf
)

// apiVersion is what KVM_GET_API_VERSION has answered since 2007; anything else is refused.
const apiVersion = 12

// Capability is a number for KVM_CHECK_EXTENSION.
type Capability uintptr

// Capabilities that the VMM asks for.
const (
	CapUserMemory    Capability = 3
	CapSetTSSAddr    Capability = 4
	CapExtCPUID      Capability = 7
	CapMPState       Capability = 14
	CapAdjustClock   Capability = 39 // answers with the flags that KVM_SET_CLOCK takes
	CapVCPUEvents    Capability = 41
	CapXSave         Capability = 55
	CapMaxVCPUs      Capability = 66
	CapTSCDeadline   Capability = 72
	CapImmediateExit Capability = 136
	CapXSave2        Capability = 208
)

// ExitReason says why KVM_RUN came back.
type ExitReason uint32

// Exit reasons that the VMM knows by name.
const (
	ExitUnknown       ExitReason = 0
	ExitException     ExitReason = 1
	ExitIO            ExitReason = 2
	ExitHypercall     ExitReason = 3
	ExitDebug         ExitReason = 4
	ExitHLT           ExitReason = 5
	ExitMMIO          ExitReason = 6
	ExitIRQWindowOpen ExitReason = 7
	ExitShutdown      ExitReason = 8
	ExitFailEntry     ExitReason = 9
	ExitIntr          ExitReason = 10
	ExitInternalError ExitReason = 17
	ExitSystemEvent   ExitReason = 24
	ExitMemoryFault   ExitReason = 39
)

var exitNames = map[ExitReason]string{
	ExitUnknown: "unknown", ExitException: "exception", ExitIO: "port I/O", ExitHypercall: "hypercall",
	ExitDebug: "debug", ExitHLT: "halt", ExitMMIO: "memory-mapped I/O",
	ExitIRQWindowOpen: "interrupt window", ExitShutdown: "shutdown (triple fault)",
	ExitFailEntry: "failed entry", ExitIntr: "interrupted", ExitInternalError: "internal error",
	ExitSystemEvent: "system event", ExitMemoryFault: "memory fault",
}

func (r ExitReason) String() string {
	if s, ok := exitNames[r]; ok {
		return s
	}
	return "exit reason " + itoa(uint32(r))
}
