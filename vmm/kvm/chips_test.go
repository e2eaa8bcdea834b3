package kvm

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mpHalted = 3 // of an MPState

// What is set is what is got, for the controllers and clocks.
func TestChipsSetGet(t *testing.T) {
	_, vm, c := testVCPUWithChips(t)
	check(t, "lapic", c.LAPIC, c.SetLAPIC, func(l *LAPIC) {
		l.SetRegister(0xf0, 0x1ff)     // spurious vector, software enabled
		l.SetRegister(0x80, 0x20)      // task priority,
		l.SetRegister(0xa0, 0x20)      // and what follows from it
		l.SetRegister(0x350, 0x700)    // LINT0: ExtINT
		l.SetRegister(0x320, 0x1_00ec) // timer, masked
	})
	check(t, "mp state", c.MPState, c.SetMPState, func(m *MPState) { m.State = mpHalted })
	for _, id := range []uint32{PICMaster, PICSlave, IOAPIC} {
		get := func() (IRQChip, error) { return vm.IRQChip(id) }
		check(t, "irqchip", get, vm.SetIRQChip, func(c *IRQChip) {
			if id == IOAPIC {
				c.Data[24+8*5] = 0x31 // vector of pin 5, which stays masked
				return
			}
			c.Data[2], c.Data[5] = 0x5a, 0x30 // IMR, base
		})
	}
	ioapic, err := vm.IRQChip(IOAPIC)
	if err != nil {
		t.Fatal(err)
	}
	if s := ioapic.IOAPIC(); s.Base != 0xfec00000 || s.Pin[5]&0xff != 0x31 {
		t.Errorf("I/O APIC: %+v", s)
	}
	pic, err := vm.IRQChip(PICMaster)
	if err != nil {
		t.Fatal(err)
	}
	if s := pic.PIC(); s.IMR != 0x5a || s.IRQBase != 0x30 {
		t.Errorf("PIC: %+v", s)
	}
}

func TestPITSetGet(t *testing.T) {
	_, vm, _ := testVCPUWithChips(t)
	p, err := vm.PIT2()
	if err != nil {
		t.Fatal(err)
	}
	p.Channels[0].Mode, p.Channels[0].RWMode, p.Channels[0].Count = 2, 3, 0x4321
	p.Channels[2].Gate, p.Channels[2].Mode = 1, 3
	if err := vm.SetPIT2(p); err != nil {
		t.Fatal(err)
	}
	got, err := vm.PIT2()
	if err != nil {
		t.Fatal(err)
	}
	// The first counter was loaded anew, at another time.
	for i := range p.Channels {
		p.Channels[i].CountLoadTime, got.Channels[i].CountLoadTime = 0, 0
	}
	if got != p {
		t.Errorf("set %+v, got %+v", p, got)
	}
}

func TestClockSetGet(t *testing.T) {
	_, vm, _ := testVCPUWithChips(t)
	c := Clock{Clock: 12345 * uint64(time.Second)}
	if err := vm.SetClock(c); err != nil {
		t.Fatal(err)
	}
	got, err := vm.Clock()
	if err != nil {
		t.Fatal(err)
	}
	if d := got.Clock - c.Clock; d > uint64(time.Minute) {
		t.Errorf("set %d, got %d", c.Clock, got.Clock)
	}
	if err := vm.SetClock(Clock{Flags: 1 << 31}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a flag that does not exist: %v", err)
	}
}

func TestIRQLine(t *testing.T) {
	_, vm, _ := testVCPUWithChips(t)
	irr := func() uint32 {
		c, err := vm.IRQChip(IOAPIC)
		if err != nil {
			t.Fatal(err)
		}
		return c.IOAPIC().IRR
	}
	for _, asserted := range []bool{true, false} {
		if err := vm.SetIRQLine(7, asserted); err != nil {
			t.Fatal(err)
		}
		if on := irr()&(1<<7) != 0; on != asserted {
			t.Errorf("line 7 set to %v: %v", asserted, on)
		}
	}
}

// Without controllers there is nothing to save, and KVM says so instead of answering with zeros.
func TestChipsMissing(t *testing.T) {
	_, vm, c := testVCPU(t)
	if _, err := c.LAPIC(); err == nil {
		t.Error("a local APIC in a machine without one")
	}
	if _, err := vm.IRQChip(IOAPIC); err == nil {
		t.Error("an I/O APIC in a machine without one")
	}
	if _, err := vm.PIT2(); err == nil {
		t.Error("a timer in a machine without one")
	}
	if err := c.KVMClockCtrl(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("KVM_KVMCLOCK_CTRL of a guest without the clock: %v", err)
	}
}

func TestStats(t *testing.T) {
	_, _, c := testVCPU(t)
	s, err := c.Stats()
	if errors.Is(err, ErrNoStats) {
		t.Skipf("needs Linux 5.14: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := all["halt_wait_ns"]; !ok {
		t.Errorf("no halt_wait_ns in %v", all)
	}
}
