package vmm

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/thawfs/thaw/vmm/kvm"
)

// HostError says that this host cannot run a saved machine as it was.
type HostError struct {
	What     string
	Features []string // of the CPU or of KVM, that the machine was told to have and this host lacks
}

func (e *HostError) Error() string {
	s := "this host cannot run the machine: " + e.What
	if len(e.Features) > 0 {
		s += ": " + strings.Join(e.Features, ", ")
	}
	return s
}

// forgiver makes what a restore does about this host's faults: without force they are its end, with
// it they are notes.
func (l *Loaded) forgiver(log *slog.Logger, force bool) func(error) error {
	return func(err error) error {
		var host *HostError
		if !force || !errors.As(err, &host) {
			return err
		}
		l.note(log, "forced: "+err.Error())
		return nil
	}
}

// checkHost compares what a machine was told of its CPUs with this host, before anything of it is
// restored. Each finding is a [*HostError].
//
//   - The vendor: guests choose code by it, and KVM emulates by it.
//   - Features: a kernel looks for them once, when it boots, and patches its own code; what it then
//     misses is an invalid instruction in the middle of it. KVM would not say a word: it takes any
//     CPUID.
//   - The size of the XSAVE area, which has the contents of the registers.
func checkHost(vcpus []vcpuState) error {
	sys, err := kvm.Open()
	if err != nil {
		return err
	}
	defer sys.Close()
	host, err := capabilities(sys)
	if err != nil {
		return err
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
	told, err := hostCPUID(sys)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].EAX |= told[i].EAX
		all[i].EBX |= told[i].EBX
		all[i].ECX |= told[i].ECX
		all[i].EDX |= told[i].EDX
	}
	return all, nil
}

func compareCPU(saved, host []kvm.CPUIDEntry) error {
	var errs []error
	if a, b := vendor(saved), vendor(host); a != b {
		errs = append(errs, &HostError{What: fmt.Sprintf(
			"it was saved on a CPU of %q, this one is of %q", a, b)})
	}
	if names := missingFeatures(saved, host); len(names) > 0 {
		errs = append(errs, &HostError{What: "it was told of features that this host lacks",
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
