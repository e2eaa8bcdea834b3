package vmm

import (
	"testing"

	"github.com/thawfs/thaw/vmm/acpi"
	"github.com/thawfs/thaw/vmm/state"
)

// TestPlaces: no two devices of the largest machine share a port or an interrupt, all interrupts are
// inputs of the I/O APIC, and the generation ID is after the tables.
func TestPlaces(t *testing.T) {
	c := acpiConfig(state.Facts{VCPUs: 1, Disks: make([]state.Disk, state.MaxDisks)})
	tables, err := acpi.Build(c)
	if err != nil || c.Base+uint64(len(tables)) > c.VMGenID || c.VMGenID%8 != 0 {
		t.Errorf("%d bytes of tables at %#x, generation ID at %#x: %v", len(tables), c.Base, c.VMGenID, err)
	}
	ports := map[uint16]bool{}
	for _, p := range []uint16{c.SleepControl, c.SleepStatus, c.Reset, c.Serial.Base, c.Keyboard.Base} {
		if p == 0 || ports[p] {
			t.Errorf("port %#x is given twice, or not at all", p)
		}
		ports[p] = true
	}
	inputs, end := map[uint32]bool{}, uint32(0)
	for _, v := range c.Virtio {
		inputs[v.GSI] = true
		if v.Base < end || v.Size == 0 {
			t.Errorf("a window of %#x bytes at %#x, the one before ends at %#x", v.Size, v.Base, end)
		}
		end = v.Base + v.Size
	}
	for _, gsi := range []uint32{c.TimerGSI, c.Serial.GSI, c.Keyboard.GSI, c.EventGSI} {
		inputs[gsi] = true
	}
	if len(inputs) != len(c.Virtio)+4 {
		t.Errorf("an input is given twice: %v", inputs)
	}
	for gsi := range inputs {
		if gsi >= 24 {
			t.Errorf("input %d of an I/O APIC with 24", gsi)
		}
	}
}
