package kvm

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// testVCPU is a vCPU without memory. The calling goroutine is locked to its thread for the test.
func testVCPU(t *testing.T) (*System, *VM, *VCPU) {
	t.Helper()
	return vcpuOf(t, func(*VM) error { return nil })
}

// testVCPUWithChips has the interrupt controllers and the interval timer too.
func testVCPUWithChips(t *testing.T) (*System, *VM, *VCPU) {
	t.Helper()
	return vcpuOf(t, func(vm *VM) error {
		return errors.Join(vm.CreateIRQChip(), vm.CreatePIT2())
	})
}

func vcpuOf(t *testing.T, setUp func(*VM) error) (*System, *VM, *VCPU) {
	t.Helper()
	s, err := Open()
	if errors.Is(err, ErrUnavailable) {
		t.Skipf("needs /dev/kvm: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	vm, err := s.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close() })
	if err := setUp(vm); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	c, err := vm.CreateVCPU(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, vm, c
}

// What is set is what is got, for everything that a state file holds.
func TestSetGet(t *testing.T) {
	s, _, c := testVCPU(t)
	cpuid, err := s.SupportedCPUID()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetCPUID(cpuid); err != nil {
		t.Fatal(err)
	}
	back, err := c.CPUID()
	if err != nil || len(back) == 0 {
		t.Fatalf("CPUID: %d entries, %v", len(back), err)
	}
	if err := c.SetCPUID(back); err != nil {
		t.Errorf("CPUID as it was read: %v", err)
	}
	check(t, "regs", c.Regs, c.SetRegs, func(r *Regs) { r.RAX, r.R15, r.RIP, r.RFLAGS = 1, 15, 0x1234, 2 })
	check(t, "sregs", c.Sregs, c.SetSregs, func(r *Sregs) { r.CR2, r.FS.Base = 0x5000, 0x1000 })
	check(t, "debug", c.DebugRegs, c.SetDebugRegs, func(d *DebugRegs) { d.DB[1] = 0x4000 })
	check(t, "mp state", c.MPState, c.SetMPState, func(*MPState) {})
	check(t, "events", c.Events, c.SetEvents, func(*VCPUEvents) {})
	check(t, "xcrs", c.XCRs, c.SetXCRs, func(x *XCRs) { x.XCRs[0].Value = 3 })
	check(t, "xsave", c.XSave, c.SetXSave, func(b *[]byte) {
		(*b)[160] = 0x5a // xmm0
		(*b)[512] |= 3   // XSTATE_BV: x87 and SSE are not in their initial state
	})
	if _, err := c.TSCKHz(); err != nil {
		t.Error(err)
	}
}

// check changes a part of the state, sets it and reads it back.
func check[T any](t *testing.T, what string, get func() (T, error), set func(T) error,
	change func(*T)) {
	t.Helper()
	v, err := get()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	change(&v)
	if err := set(v); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	got, err := get()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if d := cmp.Diff(v, got); d != "" {
		t.Errorf("%s (-set +got):\n%s", what, d)
	}
}

func TestMSRs(t *testing.T) {
	s, _, c := testVCPU(t)
	list, err := s.MSRIndexList()
	if err != nil {
		t.Fatal(err)
	}
	const tsc, star, bogus = 0x10, 0xc0000081, 0xdeadbeef
	if !slices.Contains(list, tsc) {
		t.Errorf("the list of %d registers has no time stamp counter", len(list))
	}
	if err := c.SetMSRs([]MSREntry{{Index: star, Data: 0x23001000000000}}); err != nil {
		t.Fatal(err)
	}
	got := []MSREntry{{Index: star}, {Index: tsc}}
	if err := c.MSRs(got); err != nil || got[0].Data != 0x23001000000000 {
		t.Errorf("%+v, %v", got, err)
	}
	// The kernel stops at a register that it does not have, and says so only by the count.
	var bad *MSRError
	err = c.MSRs([]MSREntry{{Index: star}, {Index: bogus}, {Index: tsc}})
	if !errors.As(err, &bad) || bad.Index != bogus {
		t.Errorf("bogus register: %v", err)
	}
	if err := c.SetMSRs([]MSREntry{{Index: bogus}}); !errors.As(err, &bad) || bad.Op != "set" {
		t.Errorf("bogus register: %v", err)
	}
	if err := c.MSRs(nil); err != nil {
		t.Error(err)
	}
}

func TestExitRequest(t *testing.T) {
	_, _, c := testVCPU(t)
	if err := c.SetSignalMask(unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	c.RequestExit()
	for range 3 {
		if _, err := c.Run(); !errors.Is(err, unix.EINTR) {
			t.Fatalf("KVM_RUN with immediate_exit: %v", err)
		}
	}
	if _, done, err := c.CompleteExit(); !done || err != nil {
		t.Errorf("CompleteExit: %v, %v", done, err)
	}
	c.ClearExitRequest()
}

func TestXSaveOfAnotherHost(t *testing.T) {
	_, _, c := testVCPU(t)
	area, err := c.XSave()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetXSave(append(area, 1)); err == nil {
		t.Error("an area larger than this host's was set")
	}
	if err := c.SetXSave(append(area, 0)); err != nil {
		t.Errorf("a larger area with nothing in it: %v", err)
	}
	if err := c.SetXSave(area[:legacyXSave]); err != nil {
		t.Errorf("a shorter area: %v", err)
	}
}

func TestExitReasonNames(t *testing.T) {
	if s := ExitMMIO.String(); s != "memory-mapped I/O" {
		t.Error(s)
	}
	if s := ExitReason(999).String(); s != "exit reason 999" {
		t.Error(s)
	}
}
