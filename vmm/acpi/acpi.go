package acpi

import "fmt"

// Config is the machine that the tables describe.
type Config struct {
	Base, Size uint64 // region for the tables in bytes, below 4 GiB; the RSDP is at Base

	CPUs      int    // 1 to [MaxCPUs]; local APIC ids are 0, 1, ...
	LocalAPIC uint32 // its address, the same for each CPU
	IOAPIC    uint32
	// TimerGSI is the input of the I/O APIC that the PIT (interrupt 0 of a PC) is connected to. On PCs
	// it is 2, in KVM only after KVM_SET_GSI_ROUTING; KVM's default is 0.
	TimerGSI uint32

	Serial   Ports // COM1
	Keyboard Ports // PS/2 controller: its data port; the command port is 4 higher. Zero: none

	SleepControl, SleepStatus, Reset uint16 // ports of a byte each

	Virtio []MMIO

	// VMGenID is the address of the 16 bytes of the generation ID; zero: there is none. EventGSI is
	// raised after they have changed.
	VMGenID  uint64
	EventGSI uint32
}

// Ports is a device in I/O space.
type Ports struct {
	Base uint16
	GSI  uint32
}

// MMIO is a virtio-mmio device.
type MMIO struct {
	Base, Size uint32
	GSI        uint32
}

const (
	// MaxCPUs follows from the size of a local APIC ID, one byte, of which 255 means all CPUs.
	MaxCPUs = 255

	// PowerOff is the value that a guest writes to the sleep control register to switch the machine
	// off: the sleep type of \_S5 and the sleep enable bit.
	PowerOff = sleepTypeOff<<2 | sleepEnable

	// ResetValue is the value that a guest writes to the reset register.
	ResetValue = 1

	sleepTypeOff = 5
	sleepEnable  = 1 << 5
)

// Build returns the tables, which must be written to c.Base. It does not check the addresses in c: no
// port and no interrupt may be used twice.
func Build(c Config) ([]byte, error) {
	if c.CPUs < 1 || c.CPUs > MaxCPUs {
		return nil, fmt.Errorf("ACPI: %d CPUs are given, and 1 to %d are possible", c.CPUs, MaxCPUs)
	}
	t := tables{base: c.Base, data: make([]byte, rsdpSize)}
	dsdtAddr := t.add(table("DSDT", dsdtRevision, dsdt(c)))
	fadtAddr := t.add(fadt(c, dsdtAddr))
	madtAddr := t.add(madt(c))
	xsdtAddr := t.add(xsdt(fadtAddr, madtAddr))
	copy(t.data, rsdp(xsdtAddr))
	if n := uint64(len(t.data)); n > c.Size {
		return nil, fmt.Errorf("ACPI: the tables have %d bytes, and there is room for %d", n, c.Size)
	}
	return t.data, nil
}

// tables puts tables one after the other, each at a multiple of 16 bytes.
type tables struct {
	base uint64
	data []byte
}

func (t *tables) add(table []byte) (addr uint64) {
	for len(t.data)%16 != 0 {
		t.data = append(t.data, 0)
	}
	addr = t.base + uint64(len(t.data))
	t.data = append(t.data, table...)
	return addr
}

// RestartAddr is the address where a PC's BIOS begins, ffff:0000.
const RestartAddr = 0xf_fff0

// Restart returns code for [RestartAddr], in place of a BIOS. It resets the machine by the reset
// register at a port.
//
// Linux needs it: on hardware-reduced machines it does not use ACPI's reset register unless it is told
// to (reboot=acpi). It expects EFI, finds none, goes back to real mode and jumps to the BIOS. Without
// this code it would execute whatever is in memory there.
func Restart(reset uint16) []byte {
	return []byte{
		0xba, byte(reset), byte(reset >> 8), // mov dx, reset
		0xb0, ResetValue, // mov al, ResetValue
		0xee,       // out dx, al
		0xf4,       // hlt
		0xeb, 0xfd, // jmp to the hlt
	}
}
