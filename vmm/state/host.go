package state

import (
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
)

// CheckHost compares a saved machine's CPU features with this host, before anything is restored. Each
// difference is a [*HostError]; there may be several, joined.
//
//   - The vendor: guests choose code by it, and KVM emulates some instructions by it.
//   - Features: a kernel reads them once, at boot, and patches its own code. If one is missing later,
//     that code has invalid instructions. KVM does not report this: it accepts any CPUID.
//   - The size of the XSAVE area, which holds the contents of registers.
func CheckHost(vcpus []VCPU) error {
	sys, err := kvm.Open()
	if err != nil {
		return err
	}
	defer sys.Close()
	host, err := capabilities(sys)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(vcpus, func(v VCPU) bool { return compareCPU(v.CPUID, host) != nil }) {
		// Only if a feature is missing, because making a VM takes milliseconds.
		if host, err = addReported(sys, host); err != nil {
			return err
		}
	}
	for _, v := range vcpus {
		err = errors.Join(err, compareCPU(v.CPUID, host), checkXSave(v.XSave, host))
		if err != nil {
			return err
		}
	}
	return nil
}

// capabilities returns all features of this host's KVM, including those that are hidden from new
// machines: older versions of this VMM did not hide them.
func capabilities(sys *kvm.System) ([]kvm.CPUIDEntry, error) {
	all, err := sys.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	told, err := HostCPUID(sys)
	if err != nil {
		return nil, err
	}
	return addFeatures(all, told), nil
}

// addReported adds the features that a vCPU reports after it was given all of list. A KVM whose guests
// execute CPUID on the hardware (kvm_pvm) may offer features that it does not list as supported, and a
// saved machine has them in its state.
func addReported(sys *kvm.System, list []kvm.CPUIDEntry) (_ []kvm.CPUIDEntry, err error) {
	vm, err := sys.CreateVM()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, vm.Close()) }()
	if err := vm.CreateIRQChip(); err != nil { // some features belong to the local APIC
		return nil, err
	}
	c, err := vm.CreateVCPU(0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.SetCPUID(list); err != nil {
		return nil, err
	}
	reported, err := c.CPUID()
	return addFeatures(list, reported), err
}

// addFeatures adds to each entry of list the feature bits of the same leaf of more.
func addFeatures(list, more []kvm.CPUIDEntry) []kvm.CPUIDEntry {
	list = slices.Clone(list)
	for i := range list {
		for _, m := range more {
			if l := &list[i]; l.Function == m.Function && l.Index == m.Index {
				l.EAX |= m.EAX
				l.EBX |= m.EBX
				l.ECX |= m.ECX
				l.EDX |= m.EDX
			}
		}
	}
	return list
}

func compareCPU(saved, host []kvm.CPUIDEntry) error {
	var errs []error
	if a, b := vendor(saved), vendor(host); a != b {
		errs = append(errs, &HostError{What: fmt.Sprintf(
			"it was saved on a CPU of vendor %q, and this one is of %q", a, b)})
	}
	if names := missingFeatures(saved, host); len(names) > 0 {
		errs = append(errs, &HostError{What: "it uses CPU features that this host does not have",
			Features: names})
	}
	return errors.Join(errs...)
}

// checkXSave checks that the saved area fits into this host's. KVM reads only as many bytes as its own
// area has, so the bytes beyond must belong to components that were not in use.
func checkXSave(area []byte, host []kvm.CPUIDEntry) error {
	size := xsaveSize(host)
	if len(area) <= size || !slices.ContainsFunc(area[size:], func(b byte) bool { return b != 0 }) {
		return nil
	}
	return &HostError{What: fmt.Sprintf("its register contents need %d bytes, and this host has room for %d",
		len(area), size)}
}

// xsaveSize returns the size in bytes of KVM's XSAVE area for a CPU: the size of all components by leaf
// 0xd, but at least that of struct kvm_xsave.
func xsaveSize(list []kvm.CPUIDEntry) int {
	size := 4096
	for _, e := range list {
		if e.Function == 0xd && e.Index == 0 {
			size = max(size, int(e.ECX))
		}
	}
	return size
}
