package kvm

import "fmt"

func get[T any](c *VCPU, req uintptr, name string) (v T, err error) {
	if _, err := ioctlStruct(c.fd, req, &v); err != nil {
		return v, fmt.Errorf("%s of vCPU %d: %w", name, c.id, err)
	}
	return v, nil
}

func set[T any](c *VCPU, req uintptr, name string, v *T) error {
	if _, err := ioctlStruct(c.fd, req, v); err != nil {
		return fmt.Errorf("%s of vCPU %d: %w", name, c.id, err)
	}
	return nil
}

// Regs is KVM_GET_REGS.
func (c *VCPU) Regs() (Regs, error) { return get[Regs](c, ioGetRegs, "KVM_GET_REGS") }

// SetRegs is KVM_SET_REGS. It clears pending exceptions.
func (c *VCPU) SetRegs(r Regs) error { return set(c, ioSetRegs, "KVM_SET_REGS", &r) }

// Sregs is KVM_GET_SREGS.
func (c *VCPU) Sregs() (Sregs, error) { return get[Sregs](c, ioGetSregs, "KVM_GET_SREGS") }

// SetSregs is KVM_SET_SREGS.
func (c *VCPU) SetSregs(r Sregs) error { return set(c, ioSetSregs, "KVM_SET_SREGS", &r) }

// XCRs is KVM_GET_XCRS.
func (c *VCPU) XCRs() (XCRs, error) { return get[XCRs](c, ioGetXCRs, "KVM_GET_XCRS") }

// SetXCRs is KVM_SET_XCRS.
func (c *VCPU) SetXCRs(x XCRs) error { return set(c, ioSetXCRs, "KVM_SET_XCRS", &x) }

// DebugRegs is KVM_GET_DEBUGREGS.
func (c *VCPU) DebugRegs() (DebugRegs, error) {
	return get[DebugRegs](c, ioGetDebugRegs, "KVM_GET_DEBUGREGS")
}

// SetDebugRegs is KVM_SET_DEBUGREGS.
func (c *VCPU) SetDebugRegs(d DebugRegs) error {
	return set(c, ioSetDebugRegs, "KVM_SET_DEBUGREGS", &d)
}

// MPState is KVM_GET_MP_STATE.
func (c *VCPU) MPState() (MPState, error) { return get[MPState](c, ioGetMPState, "KVM_GET_MP_STATE") }

// SetMPState is KVM_SET_MP_STATE.
func (c *VCPU) SetMPState(s MPState) error { return set(c, ioSetMPState, "KVM_SET_MP_STATE", &s) }

// Events is KVM_GET_VCPU_EVENTS.
func (c *VCPU) Events() (VCPUEvents, error) {
	return get[VCPUEvents](c, ioGetVCPUEvents, "KVM_GET_VCPU_EVENTS")
}

// SetEvents is KVM_SET_VCPU_EVENTS.
func (c *VCPU) SetEvents(e VCPUEvents) error {
	return set(c, ioSetVCPUEvents, "KVM_SET_VCPU_EVENTS", &e)
}

// XSave is KVM_GET_XSAVE2, or KVM_GET_XSAVE where the area fits into 4096 bytes: x87, SSE, AVX and
// later register contents.
func (c *VCPU) XSave() ([]byte, error) {
	buf, req := make([]byte, c.xsaveSize), uintptr(ioGetXSave)
	if c.xsaveSize > legacyXSave {
		req = ioGetXSave2
	}
	if _, err := ioctlBytes(c.fd, req, buf); err != nil {
		return nil, fmt.Errorf("KVM_GET_XSAVE of vCPU %d: %w", c.id, err)
	}
	return buf, nil
}

// SetXSave is KVM_SET_XSAVE. The kernel reads as many bytes as this host's area has: a shorter area
// is filled with zeros (components in their initial state), of a longer one the rest must be zeros.
func (c *VCPU) SetXSave(area []byte) error {
	buf := make([]byte, c.xsaveSize)
	for _, b := range area[copy(buf, area):] {
		if b != 0 {
			return fmt.Errorf("KVM_SET_XSAVE of vCPU %d: %d bytes saved, this host has %d", c.id,
				len(area), c.xsaveSize)
		}
	}
	if _, err := ioctlBytes(c.fd, ioSetXSave, buf); err != nil {
		return fmt.Errorf("KVM_SET_XSAVE of vCPU %d: %w", c.id, err)
	}
	return nil
}

// TSCKHz is KVM_GET_TSC_KHZ, the frequency of the guest's time stamp counter in kHz.
func (c *VCPU) TSCKHz() (uint32, error) {
	n, err := ioctl(c.fd, ioGetTSCKHz, 0)
	if err != nil {
		return 0, fmt.Errorf("KVM_GET_TSC_KHZ of vCPU %d: %w", c.id, err)
	}
	return uint32(n), nil
}

// SetTSCKHz is KVM_SET_TSC_KHZ.
func (c *VCPU) SetTSCKHz(khz uint32) error {
	if _, err := ioctl(c.fd, ioSetTSCKHz, uintptr(khz)); err != nil {
		return fmt.Errorf("KVM_SET_TSC_KHZ %d of vCPU %d: %w", khz, c.id, err)
	}
	return nil
}

// CPUID is KVM_GET_CPUID2: what the guest is told about its CPU.
func (c *VCPU) CPUID() ([]CPUIDEntry, error) { return getCPUID(c.fd, ioGetCPUID2, "KVM_GET_CPUID2") }

// SetCPUID is KVM_SET_CPUID2. To be called before the first KVM_RUN.
func (c *VCPU) SetCPUID(list []CPUIDEntry) error {
	buf, err := encodeCPUID(list)
	if err != nil {
		return err
	}
	if _, err := ioctlBytes(c.fd, ioSetCPUID2, buf); err != nil {
		return fmt.Errorf("KVM_SET_CPUID2 of vCPU %d: %w", c.id, err)
	}
	return nil
}

// MSRs reads the registers named by the entries' Index into their Data. A register that cannot be
// read is an [*MSRError].
func (c *VCPU) MSRs(list []MSREntry) error { return msrs(c.fd, ioGetMSRs, "get", list) }

// SetMSRs writes registers. A register that cannot be written is an [*MSRError]; those before it
// are written then.
func (c *VCPU) SetMSRs(list []MSREntry) error { return msrs(c.fd, ioSetMSRs, "set", list) }

// LAPIC is KVM_GET_LAPIC. It fails in a machine without interrupt controllers.
func (c *VCPU) LAPIC() (LAPIC, error) { return get[LAPIC](c, ioGetLAPIC, "KVM_GET_LAPIC") }

// SetLAPIC is KVM_SET_LAPIC. It starts the timer again from the counts in it.
func (c *VCPU) SetLAPIC(l LAPIC) error { return set(c, ioSetLAPIC, "KVM_SET_LAPIC", &l) }

// KVMClockCtrl is KVM_KVMCLOCK_CTRL: it tells the guest, in the page of its paravirtual clock, that
// it was stopped. It fails with EINVAL when the guest does not use that clock.
func (c *VCPU) KVMClockCtrl() error {
	if _, err := ioctl(c.fd, ioKVMClockCtrl, 0); err != nil {
		return fmt.Errorf("KVM_KVMCLOCK_CTRL of vCPU %d: %w", c.id, err)
	}
	return nil
}
