package doctor

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
)

func checkKVM(ctx context.Context) Check {
	c := Check{Name: "kvm", Facts: map[string]any{}, Without: "thaw vm and thaw demo cannot run; " +
		"mounts work, and other VMMs restore from them (QEMU also without KVM)"}
	kind := kvmKind()
	c.Facts["kind"] = kind
	switch err := runGuest(ctx); {
	case errors.Is(err, os.ErrPermission):
		return c.is(Missing, "%v (the group kvm may open it); %s", err, kind)
	case errors.Is(err, kvm.ErrUnavailable):
		return c.is(Missing, "%v", err)
	case err != nil:
		return c.is(Missing, "%v; %s", err, kind)
	}
	return c.is(OK, "a guest runs; %s", kind)
}

// kvmKind says how this KVM runs guests.
func kvmKind() string {
	has := func(module string) bool {
		_, err := os.Stat("/sys/module/" + module)
		return err == nil
	}
	paging := func(parameter, name string) string {
		on, _ := os.ReadFile("/sys/module/" + parameter)
		if bytes.HasPrefix(on, []byte("Y")) || bytes.HasPrefix(on, []byte("1")) {
			return name
		}
		return "shadow paging"
	}
	switch {
	case has("kvm_intel"):
		return "hardware (VT-x, " + paging("kvm_intel/parameters/ept", "EPT") + ")"
	case has("kvm_amd"):
		return "hardware (SVM, " + paging("kvm_amd/parameters/npt", "NPT") + ")"
	case has("kvm_pvm"):
		return "software (pvm, shadow paging): ring 0 of a guest is interpreted, ring 3 runs natively, " +
			"a whole Linux does not boot"
	}
	flags, _ := os.ReadFile("/proc/cpuinfo")
	switch {
	case bytes.Contains(flags, []byte(" vmx")):
		return "the CPU has VT-x, but no module of KVM is loaded"
	case bytes.Contains(flags, []byte(" svm")):
		return "the CPU has SVM, but no module of KVM is loaded"
	}
	return "of a kind that is not known"
}

// runGuest runs a guest program for a moment.
func runGuest(ctx context.Context) error {
	_, err := vmm.Run(ctx, vmm.Config{
		Guest: guest.Spec{Program: "idle"}, MemoryBytes: ram.MinMemory, For: time.Millisecond,
		Log: slog.New(slog.DiscardHandler),
	})
	return err
}
