package state

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/thawfs/thaw/vmm/kvm"
)

// describe returns the fields of a section. Unknown data is shown as bytes.
func describe(s section) []Field {
	switch s.tag {
	case tagMachine:
		return []Field{{"json", string(s.data)}}
	case tagChanged:
		return describeChanged(s.data)
	}
	value := newPart(s.tag)
	if value == nil || s.decode(value) != nil {
		return raw(s.data, 0)
	}
	switch v := value.(type) {
	case *[]byte:
		return describeXSave(*v)
	case *kvm.LAPIC:
		return describeLAPIC(v)
	case *[]kvm.CPUIDEntry:
		return describeCPUID(*v)
	case *[]kvm.MSREntry:
		return describeMSRs(*v)
	case *kvm.IRQChip:
		return describeChip(v)
	}
	return flatten("", reflect.ValueOf(value).Elem())
}

// flatten lists the fields of a value by their Go names, in lower case. Padding is shown only if it
// is not zero.
func flatten(name string, v reflect.Value) (fields []Field) {
	switch s := v.Interface().(type) {
	case kvm.Segment:
		return []Field{{name, segment(s)}}
	case kvm.Redirection:
		return []Field{{name, redirection(s)}}
	}
	switch v.Kind() {
	case reflect.Struct:
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
	return fmt.Sprintf("selector %#x base %#x limit %#x type %#x dpl %d p %d s %d l %d db %d g %d avl %d "+
		"unusable %d padding %d", s.Selector, s.Base, s.Limit, s.Type, s.DPL, s.Present, s.S, s.L, s.DB,
		s.G, s.AVL, s.Unusable, s.Padding)
}

// raw shows bytes in lines of 16, without lines of zeros.
func raw(b []byte, at int) (fields []Field) {
	for line := range slices.Chunk(b, 16) {
		if slices.ContainsFunc(line, func(c byte) bool { return c != 0 }) {
			fields = append(fields, Field{fmt.Sprintf("bytes %#x", at), hex.EncodeToString(line)})
		}
		at += len(line)
	}
	return fields
}

// describeXSave lists the fields of an XSAVE area in the standard (not compacted) layout.
func describeXSave(b []byte) (fields []Field) {
	rest := slices.Clone(b) // the bytes that no field shows
	show := func(at, size, count int, name string) {
		for i := range count {
			from := at + 16*i
			if from+size > len(b) {
				return
			}
			v := slices.Clone(b[from : from+size])
			slices.Reverse(v)
			clear(rest[from : from+size])
			field := name
			if count > 1 {
				field = fmt.Sprintf(name, i)
			}
			fields = append(fields, Field{field, "0x" + hex.EncodeToString(v)})
		}
	}
	show(0, 2, 1, "fcw")
	show(2, 2, 1, "fsw")
	show(4, 1, 1, "ftw")
	show(6, 2, 1, "fop")
	show(8, 8, 1, "fip")
	show(16, 8, 1, "fdp")
	show(24, 4, 1, "mxcsr")
	show(28, 4, 1, "mxcsr_mask")
	show(32, 10, 8, "st%d")
	show(160, 16, 16, "xmm%d")
	show(512, 8, 1, "xstate_bv")
	show(520, 8, 1, "xcomp_bv")
	show(576, 16, 16, "ymm%d_high")
	return append(fields, raw(rest, 0)...)
}

// describeLAPIC lists the important registers by name, and others if they are not zero.
func describeLAPIC(l *kvm.LAPIC) (fields []Field) {
	rest := *l // the registers that no field shows
	take := func(off int) (v uint32) {
		v = l.Register(off)
		rest.SetRegister(off, 0)
		return v
	}
	for _, r := range []struct {
		off  int
		name string
	}{
		{0x20, "id"}, {0x30, "version"}, {0x80, "tpr"}, {0xa0, "ppr"}, {0xd0, "ldr"}, {0xe0, "dfr"},
		{0xf0, "svr"}, {0x280, "esr"}, {0x300, "icr"}, {0x310, "icr2"}, {lapicLVTTimer, "lvt_timer"},
		{0x330, "lvt_thermal"}, {0x340, "lvt_perf"}, {0x350, "lvt_lint0"}, {0x360, "lvt_lint1"},
		{0x370, "lvt_error"}, {0x380, "timer_initial"}, {0x390, "timer_current"},
		{0x3e0, "timer_divide"},
	} {
		fields = append(fields, Field{r.name, fmt.Sprintf("%#x", take(r.off))})
	}
	// Sets of 256 bits, one for each vector, in eight registers each.
	for i, name := range []string{"isr", "tmr", "irr"} {
		var set []string
		for vector := range 256 {
			if l.Register(0x100+0x80*i+vector/32*16)&(1<<(vector%32)) != 0 {
				set = append(set, fmt.Sprintf("%#x", vector))
			}
		}
		for word := range 8 {
			take(0x100 + 0x80*i + 16*word)
		}
		fields = append(fields, Field{name, strings.Join(set, " ")})
	}
	return append(fields, raw(rest.Regs[:], 0)...)
}

func describeCPUID(list []kvm.CPUIDEntry) (fields []Field) {
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

func describeMSRs(list []kvm.MSREntry) (fields []Field) {
	for _, e := range list {
		f := Field{msrName(e.Index), fmt.Sprintf("%#x", e.Data)}
		if e.Reserved != 0 {
			f.Value += fmt.Sprintf(" reserved %#x", e.Reserved)
		}
		fields = append(fields, f)
	}
	return fields
}

func describeChip(c *kvm.IRQChip) []Field {
	var state any = c.PIC()
	if c.ID == kvm.IOAPIC {
		state = c.IOAPIC()
	}
	head := struct{ Controller, Padding uint32 }{c.ID, c.Padding}
	size := binary.Size(state)
	return slices.Concat(flatten("", reflect.ValueOf(head)), flatten("", reflect.ValueOf(state)),
		raw(c.Data[size:], binary.Size(head)+size))
}

// redirection describes an entry of the I/O APIC's table.
func redirection(p kvm.Redirection) string {
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

// describeChanged lists the fields of a section CHANGED.
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
