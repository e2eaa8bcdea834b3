package vmm

import (
	"fmt"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/vcpu"
)

// exit serves an exit, on the vCPU's thread. An error ends the machine.
func (m *Machine) exit(c *vcpu.Thread, reason kvm.ExitReason) error {
	switch reason {
	case kvm.ExitIO:
		return m.portAccess(c)
	case kvm.ExitIntr, kvm.ExitIRQWindowOpen:
		return nil
	case kvm.ExitMMIO:
		return m.mmioAccess(c)
	case kvm.ExitMemoryFault:
		addr, _ := c.KVM.MemoryFault()
		return &fault{sign: "KVM found no memory for the guest's access (memory fault exit)",
			gfn: addr / pageSize, known: true}
	case kvm.ExitInternalError:
		sub, data := c.KVM.InternalError()
		return &fault{sign: fmt.Sprintf("KVM could not run the guest (internal error %d %#x)", sub, data),
			perhaps: true}
	case kvm.ExitShutdown:
		return &fault{sign: "the guest had a triple fault", perhaps: true}
	case kvm.ExitFailEntry:
		return fmt.Errorf("the hardware refused to enter the guest (reason %#x)", c.KVM.FailEntryReason())
	}
	return fmt.Errorf("unexpected exit from the guest: %s", reason)
}

// portAccess passes a port access to the bus. A string instruction makes several accesses in one exit.
func (m *Machine) portAccess(c *vcpu.Thread) error {
	io, data, err := c.KVM.IO()
	if err != nil {
		return err
	}
	if io.Size < 1 || len(data)%io.Size != 0 {
		return fmt.Errorf("KVM reported a port access of %d bytes in elements of %d", len(data), io.Size)
	}
	for ; len(data) > 0; data = data[io.Size:] {
		if err := m.access(m.portBus, uint64(io.Port), data[:io.Size], io.Out); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) mmioAccess(c *vcpu.Thread) error {
	a, data, err := c.KVM.MMIO()
	if err != nil {
		return err
	}
	if ram.Contains(m.facts.Regions, a.Addr) {
		// The address is RAM, but KVM could not read its page. A KVM that emulates the access reports
		// that as an MMIO exit.
		return &fault{sign: "KVM found no memory for the guest's access (MMIO exit inside RAM)",
			gfn: a.Addr / pageSize, known: true}
	}
	return m.access(m.mmioBus, a.Addr, data, a.Write)
}

// access passes one access to the bus. At an address without a device a PC reads all ones and ignores
// writes, and kernels probe for devices that way. A guest program does not probe: for it such an access
// is an error.
func (m *Machine) access(b *device.Bus, addr uint64, data []byte, write bool) error {
	op := b.Read
	if write {
		op = b.Write
	}
	found, err := op(addr, data)
	if found || err != nil {
		return err
	}
	if !m.facts.Kernel() {
		return fmt.Errorf("the guest accessed %d bytes at %s %#x, where there is no device", len(data),
			b.Name(), addr)
	}
	if !write {
		for i := range data {
			data[i] = 0xff
		}
	}
	return nil
}
