package state

import (
	"errors"
	"fmt"
	"slices"

	"github.com/thawfs/thaw/vmm/kvm"
)

// CheckHost compares what a machine was told of its CPUs with this host, before anything of it is
// restored. Each finding is a [*HostError].
//
//   - The vendor: guests choose code by it, and KVM emulates by it.
//   - Features: a kernel looks for them once, when it boots, and patches its own code; what it then
//     misses is an invalid instruction in the middle of it. KVM would not say a word: it takes any
//     CPUID.
//   - The size of the XSAVE area, which has the contents of the registers.
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
		// Only then, for a VM costs milliseconds.
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

// capabilities is all that this host's KVM can do: with what is hidden from new machines, because
// older versions of this VMM did not hide it.
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

// addReported adds what a vCPU says of itself when it was told all of them. A KVM whose guests run
// CPUID on the bare CPU (kvm_pvm) can give them features that it does not list as supported, and a
// saved machine has them in its state.
func addReported(sys *kvm.System, list []kvm.CPUIDEntry) (_ []kvm.CPUIDEntry, err error) {
	vm, err := sys.CreateVM()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, vm.Close()) }()
	if err := vm.CreateIRQChip(); err != nil { // some features are those of the local APIC
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

// addFeatures adds to each entry the bits of the same leaf of another list.
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
			"it was saved on a CPU of %q, this one is of %q", a, b)})
	}
	if names := missingFeatures(saved, host); len(names) > 0 {
		errs = append(errs, &HostError{What: "it uses CPU features that this host does not have",
			Features: names})
	}
	return errors.Join(errs...)
}

// checkXSave looks whether the saved area fits. KVM takes as many bytes as its own area has, so
// those beyond must be of components that were not in use.
func checkXSave(area []byte, host []kvm.CPUIDEntry) error {
	size := xsaveSize(host)
	if len(area) <= size || !slices.ContainsFunc(area[size:], func(b byte) bool { return b != 0 }) {
		return nil
	}
	return &HostError{What: fmt.Sprintf("its register contents take %d bytes, this host has %d",
		len(area), size)}
}

// xsaveSize is the size of KVM's area for a CPU: what leaf 0xd says that all its components take,
// and never less than struct kvm_xsave.
func xsaveSize(list []kvm.CPUIDEntry) int {
	size := 4096
	for _, e := range list {
		if e.Function == 0xd && e.Index == 0 {
			size = max(size, int(e.ECX))
		}
	}
	return size
}
