package vmm

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/thawfs/thaw/vmm/acpi"
	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/state"
)

// Addresses and interrupts of the devices of a machine with a kernel. The ACPI tables contain all of them.
const (
	serialPort  = 0x3f8
	serialGSI   = 4
	i8042Port   = 0x60
	keyboardGSI = 1
	powerPort   = 0x600

	localAPICAddr = 0xfee0_0000 // its address after a reset
	ioAPICAddr    = 0xfec0_0000

	virtioBase = 0xd000_0000 // windows of the virtio devices, one after the other, in the hole below 4 GiB

	acpiBase  = 0xe_0000 // up to the page of the generation ID; RSDP first
	genIDAddr = 0xf_e000
	genIDGSI  = 9
)

// virtioGSIs returns the interrupts for virtio devices: those that a PC has free, without the clock's
// (8) and the event device's.
func virtioGSIs() []uint32 {
	return []uint32{5, 6, 7, 10, 11, 12, 16, 17, 18, 19, 20, 21, 22, 23}
}

// irqLine is one input of the interrupt controllers.
type irqLine struct {
	vm  *kvm.VM
	gsi uint32
}

// Set implements device.Line.
func (l irqLine) Set(asserted bool) error { return l.vm.SetIRQLine(l.gsi, asserted) }

// addDevices puts the devices on the buses. Machines with the same facts have the same devices, in the
// same order and at the same addresses, so that a saved state matches its device.
func (m *Machine) addDevices(cfg Config) error {
	if !m.facts.Kernel() {
		return m.portBus.Add(portBase, portCount, m.ports)
	}
	if cfg.Console == nil {
		cfg.Console = io.Discard
	}
	m.serial = device.NewSerial(irqLine{m.vm, serialGSI}, cfg.Console, m.log)
	port := func(base, size uint64) device.Place {
		return device.Place{Bus: m.portBus, Base: base, Size: size}
	}
	err := errors.Join(
		device.Add(m.devices, m.serial, port(serialPort, device.SerialSize)),
		device.Add(m.devices, device.NewI8042(), port(i8042Port, device.I8042Size)),
		device.Add(m.devices, device.NewPower(), port(powerPort, device.PowerSize)),
		device.Add(m.devices, device.NewGenID(m.mem, genIDAddr, irqLine{m.vm, genIDGSI}, rand.Reader)),
		device.Add(m.devices, device.NewRNG(m.virtio(0), rand.Reader), m.window(0)),
	)
	if err != nil {
		return err
	}
	if cfg.Disks != nil {
		if given, has := len(cfg.Disks), len(m.facts.Disks); given != has {
			return fmt.Errorf("the machine was saved with %d disks, and %d are given", has, given)
		}
		if m.facts.Disks, err = absolute(cfg.Disks); err != nil {
			return err
		}
	}
	for i, d := range m.facts.Disks {
		disk, err := device.OpenDisk(d.Path, d.ReadOnly)
		if err != nil {
			return err
		}
		if err := device.Add(m.devices, device.NewBlock(m.virtio(i+1), disk), m.window(i+1)); err != nil {
			return err
		}
	}
	return nil
}

// virtio returns the configuration of virtio device i.
func (m *Machine) virtio(i int) device.VirtioConfig {
	var ranges []device.Range
	for _, r := range m.facts.Regions {
		ranges = append(ranges, device.Range{Base: r.GPA, Size: r.Size})
	}
	return device.VirtioConfig{RAM: device.NewRAM(m.mem, ranges...), Line: irqLine{m.vm, virtioGSIs()[i]},
		Fail: m.end, Log: m.log}
}

func (m *Machine) window(i int) device.Place {
	return device.Place{Bus: m.mmioBus, Base: virtioBase + uint64(i)*device.VirtioSize,
		Size: device.VirtioSize}
}

// acpiConfig returns the description of the machine for its ACPI tables.
func acpiConfig(f state.Facts) acpi.Config {
	c := acpi.Config{
		Base: acpiBase, Size: genIDAddr - acpiBase,
		CPUs: f.VCPUs, LocalAPIC: localAPICAddr, IOAPIC: ioAPICAddr,
		Serial:       acpi.Ports{Base: serialPort, GSI: serialGSI},
		Keyboard:     acpi.Ports{Base: i8042Port, GSI: keyboardGSI},
		SleepControl: powerPort + device.PowerControl, SleepStatus: powerPort + device.PowerStatus,
		Reset: powerPort + device.PowerReset, VMGenID: genIDAddr, EventGSI: genIDGSI,
	}
	for i := range 1 + len(f.Disks) {
		c.Virtio = append(c.Virtio, acpi.MMIO{Base: virtioBase + uint32(i)*device.VirtioSize,
			Size: device.VirtioSize, GSI: virtioGSIs()[i]})
	}
	return c
}

// absolute makes the paths of disks absolute: a restore has another working directory.
func absolute(disks []state.Disk) ([]state.Disk, error) {
	if len(disks) > state.MaxDisks {
		return nil, fmt.Errorf("%d disks are given, and a machine can have at most %d", len(disks), state.MaxDisks)
	}
	list := slices.Clone(disks)
	for i := range list {
		var err error
		if list[i].Path, err = filepath.Abs(list[i].Path); err != nil {
			return nil, err
		}
	}
	return list, nil
}
