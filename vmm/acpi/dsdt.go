package acpi

import "fmt"

// dsdtRevision 2 makes integers of AML 64 bits wide.
const dsdtRevision = 2

// genIDChanged is the notification that the generation ID has changed, by its specification.
const genIDChanged = 0x80

// dsdt returns the table of the machine's devices.
func dsdt(c Config) []byte {
	devices := []term{serial(c.Serial)}
	if c.Keyboard != (Ports{}) {
		devices = append(devices, keyboard(c.Keyboard))
	}
	for i, v := range c.Virtio {
		devices = append(devices, virtio(i, v))
	}
	if c.VMGenID != 0 {
		devices = append(devices, generationID(c.VMGenID), events(c.EventGSI))
	}
	off := name("_S5", pkg(integer(sleepTypeOff), integer(0), integer(0), integer(0)))
	return append(off, scope("_SB", devices...)...)
}

func serial(p Ports) term {
	return device("COM1",
		name("_HID", eisaID("PNP0501")), // 16550A
		name("_UID", integer(1)),
		name("_CRS", resources(ports(p.Base, 8), edge(p.GSI))))
}

func keyboard(p Ports) term {
	return device("PS2K",
		name("_HID", eisaID("PNP0303")), // keyboard controller
		name("_CRS", resources(ports(p.Base, 1), ports(p.Base+4, 1), edge(p.GSI))))
}

// virtio describes one virtio-mmio device. _CCA says that its memory accesses are coherent with the
// CPU's caches.
func virtio(i int, v MMIO) term {
	return device(fmt.Sprintf("V%03d", i),
		name("_HID", text("LNRO0005")), // the ID that Linux, QEMU and Firecracker use
		name("_UID", integer(uint64(i))),
		name("_CCA", integer(1)),
		name("_CRS", resources(memory32(v.Base, v.Size), level(v.GSI))))
}

// generationID describes the generation ID, with its address in two halves.
func generationID(addr uint64) term {
	return device("VGEN",
		name("_HID", text("THAW0001")),
		name("_CID", text("VM_Gen_Counter")),
		name("_DDN", text("VM_Gen_Counter")),
		name("ADDR", pkg(integer(addr&0xffff_ffff), integer(addr>>32))))
}

// events describes the generic event device: the guest calls _EVT with the number of the interrupt.
func events(gsi uint32) term {
	return device("GED",
		name("_HID", text("ACPI0013")),
		name("_UID", integer(0)),
		name("_CRS", resources(edge(gsi))),
		method("_EVT", 1,
			ifTrue(equal(arg0(), integer(uint64(gsi))), notify("VGEN", genIDChanged))))
}
