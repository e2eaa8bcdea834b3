package vmm

import (
	"fmt"

	"github.com/thawfs/thaw/vmm/kvm"
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
		return &fault{sign: "the guest's access to it found no page (memory fault exit)",
			gfn: addr / pageSize, known: true}
	case kvm.ExitInternalError:
		sub, data := c.KVM.InternalError()
		return &fault{sign: fmt.Sprintf("KVM gave up (internal error %d %#x)", sub, data), perhaps: true}
	case kvm.ExitShutdown:
		return &fault{sign: "the guest had a triple fault", perhaps: true}
	case kvm.ExitFailEntry:
		return fmt.Errorf("the hardware refused to enter the guest (reason %#x)", c.KVM.FailEntryReason())
	}
	return fmt.Errorf("the guest left by %s, which it has no reason for", reason)
}
