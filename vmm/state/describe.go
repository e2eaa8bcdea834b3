package state

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/kvm"
)

// describe names what is in a section. What is not understood is shown as bytes.
func describe(s section) []Field {
	switch s.tag {
	case tagMachine:
		return []Field{{"json", string(s.data)}}
	case tagChanged:
		return describeChanged(s.data)
	case tagPorts:
		return describeFixed[Ports](s.data)
	case tagMPState:
		return describeFixed[kvm.MPState](s.data)
	case tagRegs:
		return describeFixed[kvm.Regs](s.data)
	case tagSregs:
		return describeFixed[kvm.Sregs](s.data)
	case tagXCRs:
		return describeFixed[kvm.XCRs](s.data)
	case tagDebug:
		return describeFixed[kvm.DebugRegs](s.data)
	case tagEvents:
		return describeFixed[kvm.VCPUEvents](s.data)
	case tagTSC:
		return describeFixed[uint32](s.data)
	case tagXSave:
		return describeXSave(s.data)
	case tagLAPIC:
		return describeLAPIC(s.data)
	case tagCPUID:
		return describeCPUID(s)
	case tagMSRs:
		return describeMSRs(s)
	case tagIRQChip:
		return describeChip(s)
	case tagPIT:
		return describeFixed[kvm.PIT](s.data)
	case tagClock:
		return describeFixed[kvm.Clock](s.data)
	}
	return describeDevice(s)
}

// describeDevice takes the state of a device apart.
func describeDevice(s section) []Field {
	switch s.tag {
	case (*device.Serial)(nil).Tag():
		return describeFixed[device.SerialState](s.data)
	case (*device.I8042)(nil).Tag():
		return describeFixed[device.I8042State](s.data)
	case (*device.Power)(nil).Tag():
		return describeFixed[device.PowerState](s.data)
	case (*device.GenID)(nil).Tag():
		return describeFixed[device.GenIDState](s.data)
	case (*device.RNG)(nil).Tag():
		return describeFixed[device.RNGState](s.data)
	case (*device.Block)(nil).Tag():
		return describeFixed[device.BlockState](s.data)
	}
	return raw(s.data, 0)
}

// describeFixed takes a structure of fixed layout apart. Of one that is too short nothing is known.
func describeFixed[T any](data []byte) []Field {
	var v T
	n, err := binary.Decode(data, binary.LittleEndian, &v)
	if err != nil {
		return raw(data, 0)
	}
	return append(flatten("", reflect.ValueOf(v)), raw(data[n:], n)...)
}

// flatten names the parts of a value as Go does, in lower case. Padding is shown if it holds
// something.
func flatten(name string, v reflect.Value) (fields []Field) {
	switch v.Kind() {
	case reflect.Struct:
		if s, ok := v.Interface().(kvm.Segment); ok {
			return []Field{{name, segment(s)}}
		}
		for i := range v.NumField() {
			part := strings.ToLower(v.Type().Field(i).Name)
			if name != "" {
				part = name + "." + part
			}
			fields = append(fields, flatten(part, v.Field(i))...)
		}
		return fields
	case reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, v.Len())
			reflect.Copy(reflect.ValueOf(b), v)
			return []Field{{name, hex.EncodeToString(b)}}
		}
		for i := range v.Len() {
			fields = append(fields, flatten(fmt.Sprintf("%s[%d]", name, i), v.Index(i))...)
		}
		return fields
	}
	if name == "" {
		name = "value"
	}
	if v.IsZero() && (strings.Contains(name, "pad") || strings.Contains(name, "reserved")) {
		return nil
	}
	if v.CanInt() {
		return []Field{{name, fmt.Sprint(v.Int())}}
	}
	return []Field{{name, fmt.Sprintf("%#x", v.Uint())}}
}

func segment(s kvm.Segment) string {
	text := fmt.Sprintf("selector %#x base %#x limit %#x type %#x dpl %d", s.Selector, s.Base, s.Limit,
		s.Type, s.DPL)
	for _, bit := range []struct {
		name string
		v    uint8
	}{{"p", s.Present}, {"s", s.S}, {"l", s.L}, {"db", s.DB}, {"g", s.G}, {"avl", s.AVL},
		{"unusable", s.Unusable}, {"padding", s.Padding}} {
		switch bit.v {
		case 0:
		case 1:
			text += " " + bit.name
		default:
			text += fmt.Sprintf(" %s=%d", bit.name, bit.v)
		}
	}
	return text
}

// raw shows bytes in lines of 16, leaving out lines of zeros.
func raw(b []byte, at int) (fields []Field) {
	for line := range slices.Chunk(b, 16) {
		if slices.ContainsFunc(line, func(c byte) bool { return c != 0 }) {
			fields = append(fields, Field{fmt.Sprintf("bytes %#x", at), hex.EncodeToString(line)})
		}
		at += len(line)
	}
	return fields
}

// describeXSave takes an XSAVE area apart, in the layout that does not depend on what is in use.
func describeXSave(b []byte) (fields []Field) {
	if len(b) < 576 {
		return raw(b, 0)
	}
	value := func(name string, at, n int) {
		le := slices.Clone(b[at : at+n])
		slices.Reverse(le)
		fields = append(fields, Field{name, "0x" + hex.EncodeToString(le)})
	}
	value("fcw", 0, 2)
	value("fsw", 2, 2)
	value("ftw", 4, 1)
	value("reserved", 5, 1)
	value("fop", 6, 2)
	value("fip", 8, 8)
	value("fdp", 16, 8)
	value("mxcsr", 24, 4)
	value("mxcsr_mask", 28, 4)
	for i := range 8 {
		value(fmt.Sprintf("st%d", i), 32+16*i, 10)
	}
	for i := range 16 {
		value(fmt.Sprintf("xmm%d", i), 160+16*i, 16)
	}
	value("xstate_bv", 512, 8)
	value("xcomp_bv", 520, 8)
	for i := range 8 { // the rest of the places for the x87 registers
		fields = append(fields, raw(b[42+16*i:48+16*i], 42+16*i)...)
	}
	fields = append(fields, raw(b[416:512], 416)...)
	fields = append(fields, raw(b[528:576], 528)...)
	const avx = 576
	if len(b) < avx+256 {
		return append(fields, raw(b[avx:], avx)...)
	}
	for i := range 16 {
		value(fmt.Sprintf("ymm%d_high", i), avx+16*i, 16)
	}
	return append(fields, raw(b[avx+256:], avx+256)...)
}

// describeLAPIC names the registers, and shows others that hold something.
func describeLAPIC(b []byte) (fields []Field) {
	var l kvm.LAPIC
	if len(b) != len(l.Regs) {
		return raw(b, 0)
	}
	copy(l.Regs[:], b)
	shown := make(map[int]bool)
	for _, r := range lapicRegisters() {
		fields = append(fields, Field{r.name, fmt.Sprintf("%#x", l.Register(r.off))})
		shown[r.off] = true
	}
	for _, r := range lapicVectors() {
		var set []string
		for i := range 8 {
			shown[r.off+16*i] = true
			for bit := range 32 {
				if l.Register(r.off+16*i)&(1<<bit) != 0 {
					set = append(set, fmt.Sprintf("%#x", 32*i+bit))
				}
			}
		}
		fields = append(fields, Field{r.name, strings.Join(set, " ")})
	}
	for off := 0; off < len(b); off += 4 {
		if v := l.Register(off); v != 0 && !shown[off] {
			fields = append(fields, Field{fmt.Sprintf("bytes %#x", off), fmt.Sprintf("%#x", v)})
		}
	}
	return fields
}

func describeCPUID(s section) (fields []Field) {
	list, err := decodeList[kvm.CPUIDEntry](s)
	if err != nil {
		return raw(s.data, 0)
	}
	var features []string
	for _, w := range featureWords() {
		features = append(features, w.namesOf(w.in(list))...)
	}
	fields = append(fields, Field{"vendor", vendor(list)},
		Field{"features", strings.Join(features, " ")})
	for i, e := range list {
		v := fmt.Sprintf("eax %08x ebx %08x ecx %08x edx %08x flags %x", e.EAX, e.EBX, e.ECX, e.EDX,
			e.Flags)
		if e.Padding != [3]uint32{} {
			v += fmt.Sprintf(" padding %x", e.Padding)
		}
		fields = append(fields, Field{fmt.Sprintf("%d: leaf %#x.%d", i, e.Function, e.Index), v})
	}
	return fields
}

func describeMSRs(s section) (fields []Field) {
	list, err := decodeList[kvm.MSREntry](s)
	if err != nil {
		return raw(s.data, 0)
	}
	for _, e := range list {
		f := Field{msrName(e.Index), fmt.Sprintf("%#x", e.Data)}
		if e.Reserved != 0 {
			f.Value += fmt.Sprintf(" reserved %#x", e.Reserved)
		}
		fields = append(fields, f)
	}
	return fields
}

func describeChip(s section) []Field {
	var c kvm.IRQChip
	if err := decodeFixed(s, &c); err != nil {
		return raw(s.data, 0)
	}
	fields := []Field{{"controller", fmt.Sprint(c.ID)}}
	if c.Padding != 0 {
		fields = append(fields, Field{"padding", fmt.Sprintf("%#x", c.Padding)})
	}
	if s.index != kvm.IOAPIC {
		const picSize = 16
		fields = append(fields, flatten("", reflect.ValueOf(c.PIC()))...)
		return append(fields, raw(c.Data[picSize:], 8+picSize)...)
	}
	const ioapicSize = 24 + 8*kvm.IOAPICPins
	io := c.IOAPIC()
	pins := io.Redirect
	io.Redirect = [kvm.IOAPICPins]uint64{}
	for _, f := range flatten("", reflect.ValueOf(io)) {
		if !strings.HasPrefix(f.Name, "redirect") {
			fields = append(fields, f)
		}
	}
	for i, p := range pins {
		fields = append(fields, Field{fmt.Sprintf("pin %d", i), redirection(p)})
	}
	return append(fields, raw(c.Data[ioapicSize:], 8+ioapicSize)...)
}

// redirection reads an entry of the I/O APIC's table.
func redirection(p uint64) string {
	bit := func(n int, off, on string) string {
		if p>>n&1 != 0 {
			return on
		}
		return off
	}
	mode := [...]string{"fixed", "lowest priority", "smi", "mode 3", "nmi", "init", "mode 6", "extint"}
	return fmt.Sprintf("%016x: vector %#x %s to %s %d, %s%s%s%s%s", p, p&0xff, mode[p>>8&7],
		bit(11, "physical", "logical"), p>>56, bit(15, "edge", "level"), bit(13, "", " active-low"),
		bit(12, "", " pending"), bit(14, "", " remote-irr"), bit(16, "", " masked"))
}

// Field is one value of a section.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// describeChanged lays a section open.
func describeChanged(b []byte) []Field {
	c, err := decodeChanged(b)
	if err != nil {
		return raw(b, 0)
	}
	pages := uint64(0)
	for _, r := range c.Runs {
		pages += r.Count
	}
	fields := []Field{{"parent", c.Parent}, {"parent_id", hex.EncodeToString(c.ParentID[:])},
		{"image_bytes", fmt.Sprint(c.Size)}, {"pages", fmt.Sprint(pages)}}
	for i, r := range c.Runs {
		fields = append(fields, Field{fmt.Sprintf("run[%d]", i), fmt.Sprintf("%#x+%d", r.First, r.Count)})
	}
	return fields
}
