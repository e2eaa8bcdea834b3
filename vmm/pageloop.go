package vmm

import (
	"errors"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/vcpu"
)

// For a guest that takes interrupts KVM fetches pages asynchronously: a kernel thread reads the page,
// the vCPU is halted or runs another task meanwhile, and then it tries again. Before Linux 6.13 KVM
// does not check whether the read succeeded. So a vCPU that needs a page which cannot be read retries
// for ever, and KVM_RUN never fails.
//
// A vCPU that has many page faults, none of them fixed, is suspected of such a loop. While interrupts
// are blocked, KVM fetches a page synchronously and KVM_RUN fails with EFAULT. So interrupts are
// blocked for one instruction, as STI does. If the page can be read, this has no other effect. Where it
// does not help (a host with an emulated processor may not support it), the lost page is looked for
// among those that the vCPU's registers point to.

// pageLoops watches the vCPUs of a machine for such loops.
type pageLoops struct {
	m     *Machine
	vcpus []suspectVCPU
}

type suspectVCPU struct {
	*vcpu.Thread
	taken, fixed uint64 // page faults at the last look
	looks        int    // successive looks at which it was suspected
}

// manyFaults is more than a healthy guest has between two looks with none of them fixed.
const manyFaults = 16

// watchPageLoops returns the watcher of the vCPUs. Without KVM's counters (before Linux 5.14) it
// does nothing.
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

// look compares the counters with those of the last look.
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

// holdInterrupts blocks interrupts for one instruction. It skips a vCPU that does not take interrupts:
// its pages are fetched synchronously anyway. If KVM refuses, the next look tries again.
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

// findLost ends the machine if it finds the page that the vCPU waits for to be lost.
func (m *Machine) findLost(k *kvm.VCPU) {
	err := m.explain(k, &fault{sign: "the guest requests the same page again and again", perhaps: true})
	var lost *ram.LostError
	if errors.As(err, &lost) && lost.Known {
		m.end(lost)
	}
}
