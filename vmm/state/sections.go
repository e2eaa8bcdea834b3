package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/kvm"
)

// Tags of the sections that the code needs by name.
const (
	tagMachine = "MACHINE" // JSON, see Facts
	tagChanged = "CHANGED" // changed.go
	tagPorts   = "PORTS"
)

// part is a section of a state file and the value that it encodes: a pointer to one of KVM's
// structures, or to a list of them, which have the same layout in the file as in memory.
type part struct {
	tag   string
	index uint32
	value any
}

func (p part) key() string { return sectionKey(p.tag, p.index) }

func sectionKey(tag string, index uint32) string { return fmt.Sprintf("%s %d", tag, index) }

// parts lists all sections of a state except MACHINE, in the order of the file.
func (s *Machine) parts() (list []part) {
	if !s.Facts.Kernel() {
		list = append(list, part{tagPorts, 0, &s.Ports})
	}
	for i := range s.VCPUs {
		list = append(list, s.VCPUs[i].parts(uint32(i))...)
	}
	if s.Chips != nil {
		list = append(list, s.Chips.parts()...)
	}
	for i := range s.Devices {
		d := &s.Devices[i]
		list = append(list, part{d.Tag, d.Index, &d.Data})
	}
	return list
}

func (s *VCPU) parts(i uint32) []part {
	list := []part{{"MPSTATE", i, &s.MP}, {"REGS", i, &s.Regs}, {"SREGS", i, &s.Sregs},
		{"XSAVE", i, &s.XSave}, {"XCRS", i, &s.XCRs}, {"DEBUGREG", i, &s.Debug}}
	if s.LAPIC != nil {
		list = append(list, part{"LAPIC", i, s.LAPIC})
	}
	return append(list, part{"TSCKHZ", i, &s.TSCKHz}, part{"CPUID2", i, &s.CPUID},
		part{"MSRS", i, &s.MSRs}, part{"EVENTS", i, &s.Events})
}

func (s *Chips) parts() (list []part) {
	for id := range s.Chips {
		list = append(list, part{"IRQCHIP", uint32(id), &s.Chips[id]})
	}
	return append(list, part{"PIT2", 0, &s.PIT}, part{"CLOCK", 0, &s.Clock})
}

// deviceParts lists one section of each kind of device that a machine with a kernel has.
func deviceParts() []part {
	return []part{
		{(*device.Serial)(nil).Tag(), 0, new(device.SerialState)},
		{(*device.I8042)(nil).Tag(), 0, new(device.I8042State)},
		{(*device.Power)(nil).Tag(), 0, new(device.PowerState)},
		{(*device.GenID)(nil).Tag(), 0, new(device.GenIDState)},
		{(*device.RNG)(nil).Tag(), 0, new(device.RNGState)},
		{(*device.Block)(nil).Tag(), 0, new(device.BlockState)},
	}
}

// encode writes a part.
func (p part) encode() (section, error) {
	b, err := binary.Append(nil, binary.LittleEndian, p.value)
	if err != nil {
		return section{}, fmt.Errorf("state section %s: %w", p.key(), err)
	}
	return section{tag: p.tag, index: p.index, required: true, data: b}, nil
}

// decode reads a section into the value of a part.
func (s section) decode(value any) error {
	if bytes, ok := value.(*[]byte); ok {
		*bytes = slices.Clone(s.data)
		return nil
	}
	if list := reflect.ValueOf(value).Elem(); list.Kind() == reflect.Slice {
		size := int(list.Type().Elem().Size()) // the structures have no padding that Go adds
		if len(s.data)%size != 0 {
			return badState("section %s of %d bytes does not consist of entries of %d bytes", s.key(),
				len(s.data), size)
		}
		n := len(s.data) / size
		list.Set(reflect.MakeSlice(list.Type(), n, n))
	}
	n, err := binary.Decode(s.data, binary.LittleEndian, value)
	if err == nil && n != len(s.data) {
		err = errors.New("too long")
	}
	if err != nil {
		return badState("section %s of %d bytes: %v", s.key(), len(s.data), err)
	}
	return nil
}

// check refuses values that no machine can have.
func (s *Machine) check() error {
	if s.Ports.Words > ReportWords {
		return badState("section %s has %d words of a report, which is too many", tagPorts, s.Ports.Words)
	}
	if s.Chips != nil {
		for id, c := range s.Chips.Chips {
			if c.ID != uint32(id) {
				return badState("section IRQCHIP %d has the state of controller %d", id, c.ID)
			}
		}
	}
	return nil
}

// newPart returns an empty value for the section with a tag; nil: the tag is unknown.
func newPart(tag string) any {
	var c Chips
	v := VCPU{LAPIC: new(kvm.LAPIC)}
	known := slices.Concat([]part{{tagPorts, 0, new(Ports)}}, v.parts(0), c.parts(), deviceParts())
	if i := slices.IndexFunc(known, func(p part) bool { return p.tag == tag }); i >= 0 {
		return known[i].value
	}
	return nil
}
