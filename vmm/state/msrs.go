package state

import (
	"fmt"
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
)

const (
	msrTSC         = 0x10
	msrTSCDeadline = 0x6e0

	lapicLVTTimer      = 0x320   // a register of the local APIC, as an offset into its page
	lapicTimerMode     = 3 << 17 // the mode bits of that register
	lapicTimerDeadline = 2 << 17
)

// msrRange is a range of model-specific registers that are saved.
type msrRange struct {
	first, count uint32
	name         string // of the first register; the others are name+1, ...
	when         msrWhen
}

// msrWhen says when a machine has a register.
type msrWhen int

const (
	listed   msrWhen = iota // KVM names it in KVM_GET_MSR_INDEX_LIST
	unlisted                // KVM keeps it for each vCPU but does not list it
	withAPIC                // listed, and can only be set with a local APIC
)

// savedMSRs lists the registers that are saved if the vCPU has them. KVM lists others, too: properties
// of the host, and registers of features that guests do not get here (virtualisation, Hyper-V,
// processor trace). EFER, FS.base, GS.base and the base of the APIC are part of SREGS; the x2APIC's
// registers are part of LAPIC. From MTRR_PHYS0 on the order is base, mask, base, mask, ...; from
// MC0_CTL on it is control, status, address and misc of bank 0, of bank 1, ...
func savedMSRs() []msrRange {
	return []msrRange{
		{msrTSC, 1, "TSC", listed}, {0x34, 1, "SMI_COUNT", listed}, {0x3a, 1, "FEAT_CTL", listed},
		{0x3b, 1, "TSC_ADJUST", listed}, {0x48, 1, "SPEC_CTRL", listed},
		{0x8b, 1, "UCODE_REV", listed}, {0x9e, 1, "SMBASE", listed}, {0xc1, 8, "PERFCTR0", listed},
		{0xce, 1, "PLATFORM_INFO", listed}, {0xe1, 1, "UMWAIT_CONTROL", listed},
		{0x10a, 1, "ARCH_CAPABILITIES", listed}, {0x122, 1, "TSX_CTRL", listed},
		{0x140, 1, "MISC_FEATURES_ENABLES", listed}, {0x174, 1, "SYSENTER_CS", listed},
		{0x175, 1, "SYSENTER_ESP", listed}, {0x176, 1, "SYSENTER_EIP", listed},
		{0x17a, 1, "MCG_STATUS", listed}, {0x17b, 1, "MCG_CTL", listed},
		{0x186, 8, "EVNTSEL0", listed}, {0x1a0, 1, "MISC_ENABLE", listed}, {0x1c4, 1, "XFD", listed},
		{0x1c5, 1, "XFD_ERR", listed}, {0x1cc, 9, "FRED_RSP0", listed}, {0x1d9, 1, "DEBUGCTL", listed},
		{0x1fc, 1, "POWER_CTL", listed}, {0x200, 16, "MTRR_PHYS0", unlisted},
		{0x250, 1, "MTRR_FIX64K_00000", unlisted}, {0x258, 2, "MTRR_FIX16K_80000", unlisted},
		{0x268, 8, "MTRR_FIX4K_C0000", unlisted}, {0x277, 1, "PAT", listed},
		{0x2ff, 1, "MTRR_DEF_TYPE", unlisted}, {0x309, 4, "FIXED_CTR0", listed},
		{0x38d, 4, "FIXED_CTR_CTRL", listed}, {0x3f1, 2, "PEBS_ENABLE", listed},
		{0x400, 32 * 4, "MC0_CTL", unlisted}, {0x4d0, 1, "MCG_EXT_CTL", listed},
		{0x600, 1, "DS_AREA", listed}, {0x6a0, 1, "U_CET", listed}, {0x6a2, 1, "S_CET", listed},
		{0x6a4, 5, "PL0_SSP", listed}, {msrTSCDeadline, 1, "TSC_DEADLINE", listed},
		{0xd90, 1, "BNDCFGS", listed}, {0xda0, 1, "XSS", listed}, {0xc0000081, 1, "STAR", listed},
		{0xc0000082, 1, "LSTAR", listed}, {0xc0000083, 1, "CSTAR", listed},
		{0xc0000084, 1, "SYSCALL_MASK", listed}, {0xc0000102, 1, "KERNEL_GS_BASE", listed},
		{0xc0000103, 1, "TSC_AUX", listed}, {0xc0010000, 8, "K7_EVNTSEL0", listed},
		{0xc0010015, 1, "K7_HWCR", listed}, {0xc001011f, 1, "VIRT_SPEC_CTRL", listed},
		{0xc0010200, 12, "F15H_PERF_CTL0", listed}, {0x4b564d00, 1, "KVM_WALL_CLOCK", listed},
		{0x4b564d01, 1, "KVM_SYSTEM_TIME", listed}, {0x4b564d02, 1, "KVM_ASYNC_PF_EN", withAPIC},
		{0x4b564d03, 1, "KVM_STEAL_TIME", listed}, {0x4b564d04, 1, "KVM_PV_EOI_EN", withAPIC},
		{0x4b564d05, 1, "KVM_POLL_CONTROL", listed}, {0x4b564d06, 1, "KVM_ASYNC_PF_INT", withAPIC},
		{0x4b564d07, 1, "KVM_ASYNC_PF_ACK", withAPIC},
		{0x4b564d08, 1, "KVM_MIGRATION_CONTROL", listed},
	}
}

// msrName returns the name of a register, or its number.
func msrName(index uint32) string {
	for _, r := range savedMSRs() {
		switch d := index - r.first; {
		case index < r.first || d >= r.count:
		case d == 0:
			return r.name
		default:
			return fmt.Sprintf("%s+%d", r.name, d)
		}
	}
	return fmt.Sprintf("MSR_%#x", index)
}

// GuestMSRs returns the registers of savedMSRs that KVM and the vCPU have. It leaves out registers that
// the vCPU cannot read, because its CPUID lacks their feature. A register of this list that later
// cannot be read or written is an error: KVM stops there, and reports it only by a smaller count, so
// the registers after it would be missing.
func GuestMSRs(known []uint32, k *kvm.VCPU, apic bool) (list []uint32) {
	for _, r := range savedMSRs() {
		if r.when == withAPIC && !apic {
			continue
		}
		for index := r.first; index < r.first+r.count; index++ {
			if r.when != unlisted && !slices.Contains(known, index) {
				continue
			}
			if k.MSRs([]kvm.MSREntry{{Index: index}}) == nil {
				list = append(list, index)
			}
		}
	}
	return list
}

// deadlineLast moves the deadline timer to the end.
func deadlineLast(list []kvm.MSREntry) []kvm.MSREntry {
	list = slices.Clone(list)
	i := slices.IndexFunc(list, isMSR(msrTSCDeadline))
	if i < 0 {
		return list
	}
	deadline := list[i]
	return append(slices.Delete(list, i, i+1), deadline)
}

func isMSR(index uint32) func(kvm.MSREntry) bool {
	return func(e kvm.MSREntry) bool { return e.Index == index }
}

// keepDeadline prevents the loss of a timer interrupt. If a deadline timer expires while its vCPU is
// paused, KVM clears its register and keeps the interrupt in an internal counter, which no ioctl shows,
// until the vCPU enters the guest. A state that is read in between has neither timer nor interrupt, and
// a guest that sleeps until its next tick never wakes up. So a deadline of 0 with the timer in deadline
// mode is saved as "now". If no timer was armed, the guest gets one unexpected timer interrupt, and
// only reads its clock.
func keepDeadline(list []kvm.MSREntry, l *kvm.LAPIC) {
	if l == nil || l.Register(lapicLVTTimer)&lapicTimerMode != lapicTimerDeadline {
		return
	}
	tsc := slices.IndexFunc(list, isMSR(msrTSC))
	i := slices.IndexFunc(list, isMSR(msrTSCDeadline))
	if tsc >= 0 && i >= 0 && list[i].Data == 0 {
		list[i].Data = list[tsc].Data
	}
}
