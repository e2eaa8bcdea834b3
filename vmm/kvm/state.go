package kvm

import "fmt"

// Regs reads the general registers.
func (c *VCPU) Regs() (Regs, error) { return get[Regs](c.descriptor, ioGetRegs) }

// SetRegs sets the general registers. It clears pending exceptions.
func (c *VCPU) SetRegs(r Regs) error { return set(c.descriptor, ioSetRegs, r) }

// Sregs reads segments, descriptor tables, control registers and the base of the local APIC.
func (c *VCPU) Sregs() (Sregs, error) { return get[Sregs](c.descriptor, ioGetSregs) }

// SetSregs sets what Sregs reads.
func (c *VCPU) SetSregs(r Sregs) error { return set(c.descriptor, ioSetSregs, r) }

// XCRs reads the extended control registers.
func (c *VCPU) XCRs() (XCRs, error) { return get[XCRs](c.descriptor, ioGetXCRs) }

// SetXCRs sets the extended control registers.
func (c *VCPU) SetXCRs(x XCRs) error { return set(c.descriptor, ioSetXCRs, x) }

// DebugRegs reads the debug registers.
func (c *VCPU) DebugRegs() (DebugRegs, error) { return get[DebugRegs](c.descriptor, ioGetDebugRegs) }

// SetDebugRegs sets the debug registers.
func (c *VCPU) SetDebugRegs(d DebugRegs) error { return set(c.descriptor, ioSetDebugRegs, d) }

// MPState reads whether the vCPU is runnable, halted, or waits to be started.
func (c *VCPU) MPState() (MPState, error) { return get[MPState](c.descriptor, ioGetMPState) }

// SetMPState sets what MPState reads.
func (c *VCPU) SetMPState(s MPState) error { return set(c.descriptor, ioSetMPState, s) }

// Events reads the exceptions and interrupts that are pending or being injected.
func (c *VCPU) Events() (VCPUEvents, error) { return get[VCPUEvents](c.descriptor, ioGetVCPUEvents) }

// SetEvents sets what Events reads.
func (c *VCPU) SetEvents(e VCPUEvents) error { return set(c.descriptor, ioSetVCPUEvents, e) }

// XSave reads the contents of the x87, SSE, AVX and later registers.
func (c *VCPU) XSave() ([]byte, error) {
	buf, req := make([]byte, c.xsaveSize), ioGetXSave
	if c.xsaveSize > legacyXSave {
		req = ioGetXSave2
	}
	_, err := pass(c.descriptor, req, &buf[0])
	return buf, err
}

// SetXSave sets the contents of these registers. KVM reads as many bytes as this host's area has. A
// shorter area is filled up with zeros, which means components in their initial state; the excess of a
// longer one must be zeros.
func (c *VCPU) SetXSave(area []byte) error {
	buf := make([]byte, c.xsaveSize)
	for _, b := range area[copy(buf, area):] {
		if b != 0 {
			return fmt.Errorf("%s%s: %d bytes were saved, and this host has room for %d", ioSetXSave.name,
				c.of, len(area),
				c.xsaveSize)
		}
	}
	_, err := pass(c.descriptor, ioSetXSave, &buf[0])
	return err
}

// TSCKHz is the frequency of the guest's time stamp counter in kHz.
func (c *VCPU) TSCKHz() (uint32, error) {
	n, err := c.call(ioGetTSCKHz, 0)
	return uint32(n), err
}

// SetTSCKHz sets the frequency of the guest's time stamp counter in kHz.
func (c *VCPU) SetTSCKHz(khz uint32) error {
	_, err := c.call(ioSetTSCKHz, uintptr(khz))
	return err
}

// CPUID reads the CPUID table that the guest sees.
func (c *VCPU) CPUID() ([]CPUIDEntry, error) { return cpuid(c.descriptor, ioGetCPUID2) }

// SetCPUID sets the CPUID table. It must be called before the first KVM_RUN.
func (c *VCPU) SetCPUID(list []CPUIDEntry) error {
	buf, err := encodeList(list)
	if err == nil {
		_, err = pass(c.descriptor, ioSetCPUID2, &buf[0])
	}
	return err
}

// MSRs reads the registers named by the entries' Index into their Data. If a register cannot be read,
// the error is an [*MSRError].
func (c *VCPU) MSRs(list []MSREntry) error { return c.msrs(ioGetMSRs, "get", list) }

// SetMSRs writes registers. If a register cannot be written, the error is an [*MSRError], and those
// before it have been written.
func (c *VCPU) SetMSRs(list []MSREntry) error { return c.msrs(ioSetMSRs, "set", list) }

// LAPIC reads the local APIC. It fails in a machine without interrupt controllers.
func (c *VCPU) LAPIC() (LAPIC, error) { return get[LAPIC](c.descriptor, ioGetLAPIC) }

// SetLAPIC sets the local APIC. The timer restarts from the counts in it.
func (c *VCPU) SetLAPIC(l LAPIC) error { return set(c.descriptor, ioSetLAPIC, l) }

// KVMClockCtrl tells the guest, in the page of its paravirtual clock, that it was paused. It fails with
// EINVAL if the guest does not use that clock.
func (c *VCPU) KVMClockCtrl() error {
	_, err := c.call(ioKVMClockCtrl, 0)
	return err
}
