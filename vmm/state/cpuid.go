package state

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
)

// The CPU features that a guest sees: all that KVM supports on this host, except those whose state this
// VMM cannot save and restore. The topology is one package with as many cores as vCPUs, one thread
// each.

// significantIndex is the flag of an entry that is valid for one index (ECX) of its leaf only.
const significantIndex = 1

// Bits that are set or cleared by name.
const (
	leaf1VMX         = 1 << 5  // ecx
	leaf1PDCM        = 1 << 15 // ecx
	leaf1TSCDeadline = 1 << 24 // ecx
	leaf1OSXSAVE     = 1 << 27 // ecx
	leaf1Hypervisor  = 1 << 31 // ecx
	leaf1HTT         = 1 << 28 // edx

	leaf7SGX      = 1 << 2  // ebx
	leaf7PT       = 1 << 25 // ebx
	leaf7OSPKE    = 1 << 4  // ecx
	leaf7SGXLC    = 1 << 30 // ecx
	leaf7ArchCaps = 1 << 29 // edx

	extSVM     = 1 << 2                // ecx of 0x80000001
	extIBS     = 1 << 10               // ecx
	extPerfCtr = 1<<23 | 1<<24 | 1<<28 // ecx: core, northbridge, last level cache
)

// HostCPUID returns the features for new machines on this host: what KVM supports, corrected. They are
// the same for all vCPUs.
func HostCPUID(sys *kvm.System) ([]kvm.CPUIDEntry, error) {
	list, err := sys.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	deadline, err := sys.Check(kvm.CapTSCDeadline)
	if err != nil {
		return nil, err
	}
	amd := vendor(list) != "GenuineIntel"
	for i := range list {
		correct(&list[i], amd, deadline > 0)
	}
	return list, nil
}

// correct changes one entry: it removes what this VMM does not support, and adds what KVM supports but
// does not list.
//
// Removed are nested virtualisation (its state is not saved), performance counters (another host cannot
// continue them), enclaves, encrypted memory and processor trace (the VMM cannot read their memory).
// Asynchronous page faults stay: KVM saves their registers, and when they are set again it wakes all
// waiting tasks of the guest, so no wake-up is lost between two hosts. They let the guest run another
// task while a page is loaded, which helps a lazy restore.
func correct(e *kvm.CPUIDEntry, amd, deadline bool) {
	switch e.Function {
	case 1:
		e.ECX &^= leaf1VMX | leaf1PDCM
		// Only with this bit kernels look for leaf 0x40000000, which offers KVM's clock.
		e.ECX |= leaf1Hypervisor
		if deadline {
			e.ECX |= leaf1TSCDeadline // KVM supports it, but does not list it when user space decides
		}
	case 7:
		if e.Index == 0 {
			e.EBX &^= leaf7SGX | leaf7PT
			e.ECX &^= leaf7SGXLC
			if amd {
				e.EDX &^= leaf7ArchCaps // an Intel register, which KVM lists on all CPUs
			}
		}
	case 0x80000001:
		e.ECX &^= extSVM | extIBS | extPerfCtr
	case 0xa, 0x12, 0x14, 0x8000000a, 0x8000001f, 0x80000022:
		// Counters, enclaves, trace, SVM, encryption, counters again.
		e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0
	}
}

// CPUIDFor returns the list for vCPU number id: with its APIC ID, which is its number, and the topology
// of so many cpus.
func CPUIDFor(features []kvm.CPUIDEntry, id, cpus int) []kvm.CPUIDEntry {
	list := slices.DeleteFunc(slices.Clone(features), func(e kvm.CPUIDEntry) bool {
		switch e.Function {
		case 0xb, 0x1f, 0x80000026: // the host's topology
			return true
		}
		return false
	})
	t := topology{id: uint32(id), cpus: uint32(cpus), bits: uint32(bits.Len(uint(cpus - 1)))}
	for i := range list {
		t.set(&list[i])
	}
	for _, leaf := range []uint32{0xb, 0x1f} {
		if slices.ContainsFunc(features, func(e kvm.CPUIDEntry) bool { return e.Function == leaf }) {
			list = append(list, t.levels(leaf)...)
		}
	}
	return list
}

// topology is the position of a vCPU.
type topology struct {
	id, cpus uint32
	bits     uint32 // number of bits of the APIC ID that distinguish the vCPUs
}

// set writes the topology into an entry that contains it.
func (t topology) set(e *kvm.CPUIDEntry) {
	share := uint32(1)<<t.bits - 1 // the most other vCPUs that the ID bits allow, as Intel counts
	switch e.Function {
	case 1:
		e.EBX = e.EBX&0xffff | (share+1)<<16 | t.id<<24
		e.EDX &^= leaf1HTT
		if t.cpus > 1 {
			e.EDX |= leaf1HTT
		}
	case 4, 0x8000001d: // caches of Intel, of AMD: the first two levels are a core's own
		if e.EAX&0x1f == 0 {
			break
		}
		e.EAX &= 1<<14 - 1
		sharing := t.cpus - 1
		if e.Function == 4 {
			sharing = share
			e.EAX |= share << 26
		}
		if e.EAX>>5&7 > 2 {
			e.EAX |= sharing << 14
		}
	case 0x80000008: // AMD's number of threads, and bits of the APIC ID
		e.ECX = t.bits<<12 | t.cpus - 1
	case 0x8000001e: // AMD's place of a thread: APIC ID, core, node
		e.EAX, e.EBX, e.ECX, e.EDX = t.id, t.id, 0, 0
	}
}

// levels makes the entries of a leaf that lists the levels of the topology: threads of a core, then cores.
func (t topology) levels(leaf uint32) []kvm.CPUIDEntry {
	const thread, core = 1 << 8, 2 << 8
	return []kvm.CPUIDEntry{
		{Function: leaf, Index: 0, Flags: significantIndex, EAX: 0, EBX: 1, ECX: thread, EDX: t.id},
		{Function: leaf, Index: 1, Flags: significantIndex, EAX: t.bits, EBX: t.cpus, ECX: core | 1,
			EDX: t.id},
	}
}

// vendor is the name in CPUID leaf 0.
func vendor(list []kvm.CPUIDEntry) string {
	for _, l := range list {
		if l.Function == 0 {
			le := binary.LittleEndian
			return string(le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, l.EBX), l.EDX), l.ECX))
		}
	}
	return ""
}
