package state

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func inspected(t *testing.T, s Machine) *Inspection {
	t.Helper()
	b, _, err := s.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return inspect(b)
}

func value(in *Inspection, section, field string) string {
	for _, s := range in.Sections {
		for _, f := range s.Fields {
			if s.Name() == section && f.Name == field {
				return f.Value
			}
		}
	}
	return ""
}

func TestInspect(t *testing.T) {
	s := sampleState()
	s.VCPUs[1].Sregs.CS.Selector, s.VCPUs[1].Sregs.CS.L = 0x33, 1
	s.VCPUs[1].XSave[160] = 0x5a
	s.VCPUs[1].LAPIC.SetRegister(0x210, 1<<4) // vector 0x24
	s.VCPUs[1].CPUID[0].ECX = 1<<21 | 1<<31
	s.Chips.Chips[2].Data[24+5*8], s.Chips.Chips[2].Data[24+5*8+2] = 0x31, 1
	in := inspected(t, s)
	for _, c := range []struct{ section, field, want string }{
		{"REGS 1", "rip", "0x10000"},
		{"SREGS 1", "cs", "selector 0x33 base 0x0 limit 0x0 type 0x0 dpl 0 p 0 s 0 l 1 db 0 g 0 avl 0 " +
			"unusable 0 padding 0"},
		{"SREGS 1", "cr3", "0x100000"},
		{"XSAVE 1", "xmm0", "0x0000000000000000000000000000005a"},
		{"LAPIC 1", "irr", "0x24"},
		{"LAPIC 1", "tpr", "0x20"},
		{"MSRS 0", "TSC", "0x63"},
		{"CPUID2 1", "features", "x2apic hypervisor"},
		{"IRQCHIP 2", "pin[5]", "0000000000010031: vector 0x31 fixed to physical 0, edge masked"},
		{"TSCKHZ 0", "value", "0x1e8480"},
		{"CLOCK 0", "clock", "0x4d"},
		{"PORTS 0", "periodus", "0x64"},
	} {
		if got := value(in, c.section, c.field); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.section, c.field, got, c.want)
		}
	}
	if in.Version != "2.0" || len(in.Problems) != 0 ||
		!strings.Contains(string(in.Machine), "irqchip") {
		t.Errorf("%s %v %s", in.Version, in.Problems, in.Machine)
	}
	if d := Diff(in, in); len(d) != 0 {
		t.Errorf("a state differs from itself: %v", d)
	}
}

// Every bit of a state is in some field, so two states without differences are equal.
func TestInspectShowsEveryByte(t *testing.T) {
	s := sampleState()
	list, err := s.sections()
	if err != nil {
		t.Fatal(err)
	}
	for _, sec := range list {
		whole := &Inspection{Sections: []SectionInfo{{Tag: sec.tag, Fields: describe(sec)}}}
		for i := range sec.data {
			other := sec
			other.data = slices.Clone(sec.data)
			other.data[i] ^= 1 << (i % 8)
			b := &Inspection{Sections: []SectionInfo{{Tag: sec.tag, Fields: describe(other)}}}
			if len(Diff(whole, b)) == 0 || len(Diff(b, whole)) == 0 {
				t.Fatalf("section %s %d: byte %d is not shown", sec.tag, sec.index, i)
			}
		}
	}
}

func TestDiff(t *testing.T) {
	a := sampleState()
	b := sampleState()
	b.VCPUs[0].Regs.RAX = 7
	b.VCPUs[1].MSRs = nil
	b.Facts.VCPUs = 2
	got := Diff(inspected(t, a), inspected(t, b))
	want := []Change{{"REGS 0", "rax", "0x0", "0x7"}, {"MSRS 1", "TSC", "0x63", ""}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	got = Diff(inspected(t, b), inspected(t, a))
	want = []Change{{"REGS 0", "rax", "0x7", "0x0"}, {"MSRS 1", "TSC", "", "0x63"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A damaged file is shown as far as possible, and is never reported as valid.
func TestInspectDamaged(t *testing.T) {
	whole := sampleFile(t)
	all := len(inspect(whole).Sections)
	for n := stateHeaderSize; n < len(whole); n += 7 {
		in := inspect(whole[:n])
		if len(in.Problems) == 0 {
			t.Fatalf("cut off at %d, no problem", n)
		}
		if n > len(whole)/2 && len(in.Sections) == 0 {
			t.Errorf("cut off at %d, nothing is shown", n)
		}
	}
	for i := stateHeaderSize; i < len(whole); i += 5 {
		b := slices.Clone(whole)
		b[i] ^= 0x10
		in := inspect(b)
		if len(in.Problems) == 0 {
			t.Fatalf("byte %d was changed, no problem", i)
		}
		damaged := 0
		for _, s := range in.Sections {
			if s.Damaged {
				damaged++
			}
		}
		if damaged == 0 && len(in.Sections) == all {
			t.Fatalf("byte %d was changed, no section is damaged", i)
		}
	}
	dir := t.TempDir()
	for _, b := range [][]byte{nil, whole[:31], []byte(strings.Repeat("x", 100))} {
		if err := os.WriteFile(filepath.Join(dir, StateFile), b, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Inspect(dir)
		wantStateError(t, "no state file", err)
	}
}
