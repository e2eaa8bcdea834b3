package vmm

import (
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
)

const msrTSCDeadline = 0x6e0

// savedMSRs are the model specific registers that are part of a guest's state. KVM lists many more:
// host facts, counters of its own, registers of devices that this machine does not have. What is
// saved is the intersection of this list with what the host's KVM knows.
var savedMSRs = []uint32{
	0x10,           // TSC
	0x3b,           // TSC_ADJUST
	0x48,           // SPEC_CTRL
	0x174,          // SYSENTER_CS
	0x175,          // SYSENTER_ESP
	0x176,          // SYSENTER_EIP
	0x1a0,          // MISC_ENABLE
	0x1d9,          // DEBUGCTL
	0x277,          // PAT
	0x2ff,          // MTRR_DEF_TYPE
	msrTSCDeadline, // TSC_DEADLINE
	0xda0,          // XSS
	0xc0000081,     // STAR
	0xc0000082,     // LSTAR
	0xc0000083,     // CSTAR
	0xc0000084,     // SYSCALL_MASK
	0xc0000102,     // KERNEL_GS_BASE
	0xc0000103,     // TSC_AUX
	0x4b564d00,     // KVM wall clock, new number
	0x4b564d01,     // KVM system time, new number
}

// guestMSRs is savedMSRs as far as this host has them, without what one vCPU refuses to give (a
// register of a feature that its CPUID does not have).
func guestMSRs(known []uint32, k *kvm.VCPU) []uint32 {
	var list []uint32
	for _, index := range savedMSRs {
		if !slices.Contains(known, index) {
			continue
		}
		if k.MSRs([]kvm.MSREntry{{Index: index}}) == nil {
			list = append(list, index)
		}
	}
	return list
}

// deadlineLast moves the deadline timer behind all others.
func deadlineLast(list []kvm.MSREntry) []kvm.MSREntry {
	list = slices.Clone(list)
	i := slices.IndexFunc(list, func(e kvm.MSREntry) bool { return e.Index == msrTSCDeadline })
	if i < 0 {
		return list
	}
	deadline := list[i]
	return append(slices.Delete(list, i, i+1), deadline)
}
