package kvm

import "encoding/binary"

// LAPIC mirrors struct kvm_lapic_state: the register page of a vCPU's local interrupt controller, with
// one 32-bit register every 16 bytes.
type LAPIC struct{ Regs [1024]byte }

// Register returns the register at a byte offset.
func (l *LAPIC) Register(off int) uint32 { return getU32(l.Regs[off:]) }

// SetRegister sets the register at a byte offset.
func (l *LAPIC) SetRegister(off int, v uint32) { putU32(l.Regs[off:], v) }

// IDs of the three interrupt controllers that all vCPUs share.
const (
	PICMaster = 0
	PICSlave  = 1
	IOAPIC    = 2
)

// IRQChip mirrors struct kvm_irqchip: one of the three controllers. Data is a [PICState] or an
// [IOAPICState], followed by zeros.
type IRQChip struct {
	ID, Padding uint32
	Data        [512]byte
}

// PIC reads the state of a [PICMaster] or [PICSlave].
func (c *IRQChip) PIC() (s PICState) { decodeChip(c, &s); return s }

// IOAPIC reads the state of the [IOAPIC].
func (c *IRQChip) IOAPIC() (s IOAPICState) { decodeChip(c, &s); return s }

func decodeChip[T any](c *IRQChip, s *T) {
	if _, err := binary.Decode(c.Data[:], binary.LittleEndian, s); err != nil {
		panic(err) // a struct of integers, shorter than the data
	}
}

// PICState mirrors struct kvm_pic_state, an 8259.
type PICState struct {
	LastIRR, IRR, IMR, ISR                uint8
	PriorityAdd, IRQBase, ReadRegSelect   uint8
	Poll, SpecialMask, InitState, AutoEOI uint8
	RotateOnAutoEOI, SpecialFullyNested   uint8
	Init4, ELCR, ELCRMask                 uint8
}

// IOAPICPins is the number of inputs of the I/O APIC.
const IOAPICPins = 24

// IOAPICState mirrors struct kvm_ioapic_state.
type IOAPICState struct {
	Base                 uint64
	Select, ID, IRR, Pad uint32
	Pin                  [IOAPICPins]Redirection
}

// Redirection is the entry of the I/O APIC's table for one input.
type Redirection uint64

// PITChannel mirrors struct kvm_pit_channel_state: one counter of an 8254.
type PITChannel struct {
	Count                               uint32 // can be 65536
	LatchedCount                        uint16
	CountLatched, StatusLatched, Status uint8
	ReadState, WriteState, WriteLatch   uint8
	RWMode, Mode, BCD, Gate             uint8
	CountLoadTime                       int64 // ns, of the host's clock
}

// PIT mirrors struct kvm_pit_state2.
type PIT struct {
	Channels [3]PITChannel
	Flags    uint32
	Reserved [9]uint32
}

// pitSpeakerDummy lets KVM answer port 0x61 itself. Kernels poll it while they measure the speed of the
// CPU, and each read would be an exit.
const pitSpeakerDummy = 1

// pitConfig mirrors struct kvm_pit_config.
type pitConfig struct {
	Flags   uint32
	Padding [15]uint32
}

// ClockRealtime is a flag of a [Clock]: the field Realtime is valid. In SetClock it means: add the time
// that has passed since Realtime.
const ClockRealtime = 1 << 2

// Clock mirrors struct kvm_clock_data: the guest's paravirtual clock, in nanoseconds since the
// machine was made.
type Clock struct {
	Clock    uint64
	Flags    uint32
	Pad0     uint32
	Realtime uint64 // the host's wall clock when Clock was read, nanoseconds
	HostTSC  uint64
	Pad      [4]uint32
}

// irqLevel mirrors struct kvm_irq_level.
type irqLevel struct{ GSI, Level uint32 }

// CreateIRQChip makes the interrupt controllers: two PICs, an I/O APIC, and a local APIC in each vCPU.
// It must be called before the first vCPU is made.
func (vm *VM) CreateIRQChip() error {
	_, err := vm.call(ioCreateIRQChip, 0)
	return err
}

// CreatePIT2 makes the interval timer. It must be called after CreateIRQChip.
func (vm *VM) CreatePIT2() error {
	return set(vm.descriptor, ioCreatePIT2, pitConfig{Flags: pitSpeakerDummy})
}

// SetIRQLine asserts or releases an input of the interrupt controllers. Any goroutine may call it.
func (vm *VM) SetIRQLine(gsi uint32, asserted bool) error {
	l := irqLevel{GSI: gsi}
	if asserted {
		l.Level = 1
	}
	return set(vm.descriptor, ioIRQLine, l)
}

// IRQChip reads the state of a controller.
func (vm *VM) IRQChip(id uint32) (IRQChip, error) {
	c := IRQChip{ID: id}
	_, err := pass(vm.descriptor, ioGetIRQChip, &c)
	return c, err
}

// SetIRQChip sets the state of a controller. For the I/O APIC, pending inputs are passed to the local APICs.
func (vm *VM) SetIRQChip(c IRQChip) error { return set(vm.descriptor, ioSetIRQChip, c) }

// PIT2 reads the state of the interval timer.
func (vm *VM) PIT2() (PIT, error) { return get[PIT](vm.descriptor, ioGetPIT2) }

// SetPIT2 sets the state of the interval timer, and restarts its first counter.
func (vm *VM) SetPIT2(p PIT) error { return set(vm.descriptor, ioSetPIT2, p) }

// Clock reads the guest's clock.
func (vm *VM) Clock() (Clock, error) { return get[Clock](vm.descriptor, ioGetClock) }

// SetClock sets the guest's clock. The only flag that may be set is [ClockRealtime].
func (vm *VM) SetClock(c Clock) error { return set(vm.descriptor, ioSetClock, c) }
