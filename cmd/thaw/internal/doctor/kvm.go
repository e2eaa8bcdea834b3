package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/kvm"
)

func checkKVM(context.Context) Check {
	c := Check{Name: "kvm", Facts: map[string]any{}, Without: "thaw vm and thaw demo cannot run; " +
		"mounts work, and other VMMs restore from them (QEMU also without KVM)"}
	kind := kvmKind()
	c.Facts["kind"] = kind
	switch err := runGuest(); {
	case errors.Is(err, os.ErrPermission):
		return c.missing("%v (the group kvm may open it); %s", err, kind)
	case errors.Is(err, kvm.ErrUnavailable):
		return c.missing("%v", err)
	case err != nil:
		return c.missing("%v; %s", err, kind)
	}
	return c.ok("a guest runs; %s", kind)
}

// kvmKind says by what guests are run.
func kvmKind() string {
	has := func(module string) bool {
		_, err := os.Stat("/sys/module/" + module)
		return err == nil
	}
	parameter := func(path string) string {
		text, _ := os.ReadFile("/sys/module/" + path)
		return strings.TrimSpace(string(text))
	}
	on := func(path string) bool { v := parameter(path); return v == "Y" || v == "1" }
	paging := func(path, name string) string {
		if on(path) {
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

// guestCode writes a byte to a port and halts, in 16-bit real mode.
var guestCode = []byte{
	0xb0, 0x2a, // mov al, 42
	0xe6, 0x17, // out 0x17, al
	0xf4, // hlt
}

// runGuest makes a machine of one page of memory and two instructions, and runs it.
func runGuest() (err error) {
	system, err := kvm.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, system.Close()) }()
	vm, err := system.CreateVM()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vm.Close()) }()
	// Intel hosts of old run real mode in a task of their own, which needs these pages.
	if n, err := system.Check(kvm.CapSetTSSAddr); err == nil && n > 0 {
		if err := errors.Join(vm.SetIdentityMapAddr(0xfffbc000), vm.SetTSSAddr(0xfffbd000)); err != nil {
			return err
		}
	}
	memory, err := unix.Mmap(-1, 0, 16<<12, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(memory)
	const entry = 0x1000
	copy(memory[entry:], guestCode)
	if err := vm.SetMemoryRegion(kvm.MemoryRegion{
		MemorySize: uint64(len(memory)), UserspaceAddr: addressOf(memory),
	}); err != nil {
		return err
	}
	return runVCPU(vm, entry)
}

// runVCPU runs one vCPU from an address on until it halts.
func runVCPU(vm *kvm.VM, entry uint64) (err error) {
	runtime.LockOSThread() // KVM wants a vCPU to stay on its thread
	defer runtime.UnlockOSThread()
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	sregs, err := cpu.Sregs()
	if err != nil {
		return err
	}
	sregs.CS.Base, sregs.CS.Selector = 0, 0
	regs := kvm.Regs{RIP: entry, RFLAGS: 2}
	if err := errors.Join(cpu.SetSregs(sregs), cpu.SetRegs(regs)); err != nil {
		return err
	}
	wrote := false
	for range 1000 { // signals of the Go runtime end KVM_RUN too
		reason, err := cpu.Run()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("run a guest: %w", err)
		case reason == kvm.ExitIO:
			_, data, err := cpu.IO()
			if err != nil {
				return err
			}
			wrote = len(data) == 1 && data[0] == 42
		case reason == kvm.ExitHLT && wrote:
			return nil
		default:
			return fmt.Errorf("run a guest: it ended by %v", reason)
		}
	}
	return errors.New("run a guest: it does not come to an end")
}
