package vmm

import (
	"errors"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/vcpu"
)

// A guest that takes interrupts gets its pages in the background: KVM has a kernel thread fetch the
// page, halts the vCPU or lets it do something else meanwhile, and then lets it try again. Before
// Linux 6.13 KVM does not look whether the page came. One that cannot be read is asked for again and
// again, for ever, and KVM_RUN never fails.
//
// A vCPU that has page faults and gets no page is suspected of that. An instruction during which
// interrupts are held off is served at once, in the foreground, where failure is EFAULT: so the
// next one is made to run in that way, as the one after STI does. If its page can be read after all,
// nothing has happened. Where that does not help (a host whose processor is emulated may not have
// it), the page is looked for among those that the CPU's registers point to.

// pageLoops watches the vCPUs of a machine for it.
type pageLoops struct {
	m     *Machine
	vcpus []suspectVCPU
}

type suspectVCPU struct {
	*vcpu.Thread
	taken, fixed uint64 // page faults, when last looked
	looks        int    // in a row, at which it was suspected
}

// manyFaults are more than a guest has between two looks without any of them being fixed.
const manyFaults = 16

// watchPageLoops begins. Where KVM has no counters (before Linux 5.14) nothing is watched.
func (m *Machine) watchPageLoops() *pageLoops {
	p := &pageLoops{m: m}
	if !m.facts.IRQChip || !m.mem.Mapped() {
		return p
	}
	for _, c := range m.vcpus {
		p.vcpus = append(p.vcpus, suspectVCPU{Thread: c})
	}
	return p
}

// look compares the counters with those of the last time.
func (p *pageLoops) look() {
	for i := range p.vcpus {
		c := &p.vcpus[i]
		taken, fixed, ok := c.PageFaults()
		if !ok {
			continue
		}
		if taken-c.taken >= manyFaults && fixed == c.fixed {
			c.looks++
		} else {
			c.looks = 0
		}
		c.taken, c.fixed = taken, fixed
		switch {
		case c.looks == 1:
			c.Interject(func() { holdInterrupts(c.KVM) })
		case c.looks > 1:
			c.Interject(func() { p.m.findLost(c.KVM) })
		}
	}
}

// holdInterrupts keeps interrupts off for one instruction. Only a CPU that takes them may be in
// that state, and another one is not in a loop: what it needs is fetched in the foreground anyway.
// If KVM does not like it, the next look comes soon.
func holdInterrupts(k *kvm.VCPU) {
	regs, err := k.Regs()
	if err != nil || regs.RFLAGS&kvm.RFLAGSIF == 0 {
		return
	}
	e, err := k.Events()
	if err != nil {
		return
	}
	e.Interrupt.Shadow = kvm.ShadowSTI
	e.Flags |= kvm.EventsHaveShadow
	_ = k.SetEvents(e)
}

// findLost ends the machine if the page that a vCPU waits for is known to be lost.
func (m *Machine) findLost(k *kvm.VCPU) {
	err := m.explain(k, &fault{sign: "the guest asks for a page again and again", perhaps: true})
	var lost *ram.LostError
	if errors.As(err, &lost) && lost.Known {
		m.end(lost)
	}
}
