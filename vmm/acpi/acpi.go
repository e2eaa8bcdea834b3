package acpi

import (
	"fmt"
	"slices"
)

// Config is the machine that the tables describe.
type Config struct {
	Base, Size uint64 // region for the tables, below 4 GiB; the RSDP is at Base

	CPUs      int    // 1 to [MaxCPUs]; local APIC ids are 0, 1, ...
	LocalAPIC uint32 // its address, the same for each CPU
	IOAPIC    uint32
	// TimerGSI is the input of the I/O APIC that the PIT, interrupt 0 of a PC, is wired to: 2 on
	// PCs, and with KVM only after KVM_SET_GSI_ROUTING says so. Its routing from the start is 0.
	TimerGSI uint32

	Serial   Ports // COM1
	Keyboard Ports // PS/2 controller: its data port; the command port is 4 further on. Zero: none

	SleepControl, SleepStatus, Reset uint16 // ports of a byte each

	Virtio []MMIO

	// VMGenID is the address of the 16 bytes of the generation id; EventGSI is raised after they
	// have changed. Zero: there is none.
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
	// MaxCPUs is given by the local APIC ids of a byte: 255 means all of them.
	MaxCPUs = 255

	// PowerOff is what a guest writes to the sleep control register to switch the machine off:
	// the sleep type of \_S5, and the bit that lets it begin.
	PowerOff = sleepTypeOff<<2 | sleepEnable

	// ResetValue is what a guest writes to the reset register.
	ResetValue = 1

	sleepTypeOff = 5
	sleepEnable  = 1 << 5

	gsiCount   = 24 // inputs of the I/O APIC
	maxVirtio  = 1000
	genIDBytes = 16
)

// Build makes the tables, to be written to c.Base.
func Build(c Config) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("ACPI: %w", err)
	}
	body, err := encode(dsdt(c)...)
	if err != nil {
		return nil, fmt.Errorf("ACPI: DSDT: %w", err)
	}
	t := tables{base: c.Base, data: make([]byte, rsdpSize)}
	dsdtAddr := t.add(table("DSDT", dsdtRevision, body))
	fadtAddr := t.add(fadt(c, dsdtAddr))
	madtAddr := t.add(madt(c))
	xsdtAddr := t.add(xsdt(fadtAddr, madtAddr))
	copy(t.data, rsdp(xsdtAddr))
	if n := uint64(len(t.data)); n > c.Size {
		return nil, fmt.Errorf("ACPI: tables of %d bytes: there is room for %d", n, c.Size)
	}
	end := c.Base + uint64(len(t.data))
	if c.VMGenID != 0 && c.VMGenID < end && c.VMGenID+genIDBytes > c.Base {
		return nil, fmt.Errorf("ACPI: the generation id at %#x is within the tables, %#x to %#x",
			c.VMGenID, c.Base, end)
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

func (c Config) check() error {
	switch {
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return fmt.Errorf("%d CPUs: 1 to %d are possible", c.CPUs, MaxCPUs)
	case c.Base%16 != 0 || c.Base >= 1<<32 || c.Size > 1<<32-c.Base:
		return fmt.Errorf("region of %#x bytes at %#x: it begins at a multiple of 16, below 4 GiB",
			c.Size, c.Base)
	case c.LocalAPIC == 0 || c.IOAPIC == 0:
		return fmt.Errorf("local APIC at %#x, I/O APIC at %#x: both are needed", c.LocalAPIC, c.IOAPIC)
	case c.VMGenID%8 != 0 || c.VMGenID > ^uint64(genIDBytes):
		return fmt.Errorf("generation id at %#x: it is at a multiple of 8", c.VMGenID)
	case len(c.Virtio) > maxVirtio:
		return fmt.Errorf("%d virtio devices: %d are possible", len(c.Virtio), maxVirtio)
	}
	return c.checkPlaces()
}

// checkPlaces refuses ports and interrupts that are missing, impossible or given twice. Level and
// edge-triggered devices cannot share an input, and sharing among equals is left out too: it makes
// each interrupt cost a look at every device.
func (c Config) checkPlaces() error {
	ports := []uint16{c.SleepControl, c.SleepStatus, c.Reset, c.Serial.Base}
	gsis := []uint32{c.TimerGSI, c.Serial.GSI}
	if c.Keyboard != (Ports{}) {
		ports, gsis = append(ports, c.Keyboard.Base), append(gsis, c.Keyboard.GSI)
	}
	if c.VMGenID != 0 {
		gsis = append(gsis, c.EventGSI)
	}
	for _, v := range c.Virtio {
		if v.Base == 0 || v.Size == 0 || v.Size-1 > ^v.Base {
			return fmt.Errorf("virtio device of %#x bytes at %#x", v.Size, v.Base)
		}
		gsis = append(gsis, v.GSI)
	}
	for i, p := range ports {
		if p == 0 || slices.Contains(ports[:i], p) {
			return fmt.Errorf("port %#x: each device and register needs its own", p)
		}
	}
	for i, g := range gsis {
		if g >= gsiCount || slices.Contains(gsis[:i], g) {
			return fmt.Errorf("interrupt %d: it must be below %d, and each device needs its own", g,
				gsiCount)
		}
	}
	return nil
}
