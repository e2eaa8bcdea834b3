package state

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/vmm/kvm"
)

func vendorLeaf(name string, highest uint32) kvm.CPUIDEntry {
	w := func(s string) (v uint32) {
		for i := range 4 {
			v |= uint32(s[i]) << (8 * i)
		}
		return v
	}
	return kvm.CPUIDEntry{EAX: highest, EBX: w(name[0:4]), EDX: w(name[4:8]), ECX: w(name[8:12])}
}

func entry(list []kvm.CPUIDEntry, leaf, index uint32) kvm.CPUIDEntry {
	i := slices.IndexFunc(list, func(e kvm.CPUIDEntry) bool {
		return e.Function == leaf && e.Index == index
	})
	if i < 0 {
		return kvm.CPUIDEntry{}
	}
	return list[i]
}

func TestCPUIDOfAVCPU(t *testing.T) {
	host := []kvm.CPUIDEntry{
		vendorLeaf("AuthenticAMD", 0x1f),
		{Function: 1, EBX: 0x07100800, EDX: leaf1HTT | 1}, // APIC ID 7 of 16
		{Function: 4, EAX: 0x1c004121},                    // level 1, with the host's sharing
		{Function: 4, Index: 1, EAX: 0x7c01c163},          // level 3
		{Function: 4, Index: 2},                           // the end of the list
		{Function: 0xb, EAX: 4, EBX: 16, ECX: 0x100, EDX: 7},
		{Function: 0xb, Index: 1, EAX: 5, EBX: 32, ECX: 0x201, EDX: 7},
		{Function: 0x1f, EAX: 4, EBX: 16, ECX: 0x100, EDX: 7},
		{Function: 0x80000008, EAX: 0x3030, ECX: 0x500f},
		{Function: 0x8000001d, Index: 3, EAX: 0x3c163},
		{Function: 0x8000001e, EAX: 7, EBX: 0x103, ECX: 1},
		{Function: 0x80000026, EAX: 99},
	}
	before := slices.Clone(host)
	for _, c := range []struct{ id, cpus, bits, leaf1 int }{
		{0, 1, 0, 0x00010800}, {1, 2, 1, 0x01020800}, {2, 3, 2, 0x02040800}, {4, 5, 3, 0x04080800},
	} {
		list := CPUIDFor(host, c.id, c.cpus)
		id, bits, cpus := uint32(c.id), uint32(c.bits), uint32(c.cpus)
		if e := entry(list, 1, 0); e.EBX != uint32(c.leaf1) || e.EDX&1 == 0 ||
			(e.EDX&leaf1HTT != 0) != (c.cpus > 1) {
			t.Errorf("%+v: leaf 1: %+v", c, e)
		}
		for _, leaf := range []uint32{0xb, 0x1f} {
			thread, core := entry(list, leaf, 0), entry(list, leaf, 1)
			if thread.EDX != id || core.EDX != id || thread.EAX != 0 || thread.EBX != 1 ||
				core.EAX != bits || core.EBX != cpus || thread.ECX != 0x100 || core.ECX != 0x201 {
				t.Errorf("%+v: leaf %#x: %+v, %+v", c, leaf, thread, core)
			}
		}
		if e := entry(list, 4, 0); e.EAX != 0x121|(1<<bits-1)<<26 {
			t.Errorf("%+v: level 1: %#x", c, e.EAX)
		}
		if e := entry(list, 4, 1); e.EAX != 0x163|(1<<bits-1)<<26|(1<<bits-1)<<14 {
			t.Errorf("%+v: level 3: %#x", c, e.EAX)
		}
		if e := entry(list, 4, 2); e.EAX != 0 {
			t.Errorf("%+v: the end of the caches: %#x", c, e.EAX)
		}
		if e := entry(list, 0x80000008, 0); e.ECX != bits<<12|cpus-1 || e.EAX != 0x3030 {
			t.Errorf("%+v: %+v", c, e)
		}
		if e := entry(list, 0x8000001d, 3); e.EAX != 0x163|(cpus-1)<<14 {
			t.Errorf("%+v: %#x", c, e.EAX)
		}
		if e := entry(list, 0x8000001e, 0); e.EAX != id || e.EBX != id || e.ECX != 0 {
			t.Errorf("%+v: %+v", c, e)
		}
		if e := entry(list, 0x80000026, 0); e.EAX != 0 {
			t.Errorf("the host's topology is shown: %+v", e)
		}
	}
	if d := cmp.Diff(before, host); d != "" {
		t.Errorf("the host's list was changed: %s", d)
	}
}

func TestCPUIDCorrections(t *testing.T) {
	all := kvm.CPUIDEntry{EAX: ^uint32(0), EBX: ^uint32(0), ECX: ^uint32(0), EDX: ^uint32(0)}
	try := func(leaf uint32, amd bool) kvm.CPUIDEntry {
		e := all
		e.Function = leaf
		correct(&e, amd, false)
		return e
	}
	if e := try(1, false); e.ECX&(leaf1VMX|leaf1PDCM) != 0 || e.ECX&leaf1Hypervisor == 0 {
		t.Errorf("leaf 1: %+v", e)
	}
	if e := try(7, true); e.EDX&leaf7ArchCaps != 0 || e.EBX&(leaf7SGX|leaf7PT) != 0 {
		t.Errorf("leaf 7 of AMD: %+v", e)
	}
	if e := try(7, false); e.EDX&leaf7ArchCaps == 0 {
		t.Errorf("leaf 7 of Intel: %+v", e)
	}
	if e := try(0x80000001, true); e.ECX&(extSVM|extPerfCtr) != 0 {
		t.Errorf("leaf 0x80000001: %+v", e)
	}
	for _, leaf := range []uint32{0xa, 0x12, 0x14, 0x8000000a, 0x8000001f, 0x80000022} {
		if e := try(leaf, true); e.EAX|e.EBX|e.ECX|e.EDX != 0 {
			t.Errorf("leaf %#x is shown: %+v", leaf, e)
		}
	}
	if e := try(0xd, true); e.EAX != ^uint32(0) {
		t.Errorf("leaf 0xd: %+v", e)
	}
}

func TestMissingFeatures(t *testing.T) {
	host := []kvm.CPUIDEntry{vendorLeaf("AuthenticAMD", 0x10), {Function: 1, ECX: 1 << 28},
		{Function: 7, EBX: 1 << 5}, {Function: 0xd, EAX: 7}, {Function: 0x40000001, EAX: 1}}
	tests := []struct {
		what   string
		change func(l []kvm.CPUIDEntry)
		want   string
	}{
		{"the same", func([]kvm.CPUIDEntry) {}, ""},
		{"less", func(l []kvm.CPUIDEntry) { l[1].ECX, l[2].EBX = 0, 0 }, ""},
		{"AVX-512", func(l []kvm.CPUIDEntry) { l[2].EBX |= 1<<16 | 1<<30 }, "avx512f avx512bw"},
		{"XSAVE components", func(l []kvm.CPUIDEntry) { l[3].EAX |= 1 << 5 }, "xcr0:opmask"},
		{"a bit without a name", func(l []kvm.CPUIDEntry) { l[1].EDX |= 1 << 10 },
			"cpuid 0x1.0 edx[10]"},
		{"of KVM", func(l []kvm.CPUIDEntry) { l[4].EAX |= 1 << 14 }, "kvm:async_pf_int"},
		{"what the guest switched on", func(l []kvm.CPUIDEntry) { l[1].ECX |= leaf1OSXSAVE }, ""},
		{"several threads", func(l []kvm.CPUIDEntry) { l[1].EDX |= leaf1HTT }, ""},
	}
	for _, c := range tests {
		saved := slices.Clone(host)
		c.change(saved)
		if got := strings.Join(missingFeatures(saved, host), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		var lacks *HostError
		if err := compareCPU(saved, host); errors.As(err, &lacks) != (c.want != "") {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	intel := append([]kvm.CPUIDEntry{vendorLeaf("GenuineIntel", 0x10)}, host[1:]...)
	if err := compareCPU(host, intel); err == nil || !strings.Contains(err.Error(), "GenuineIntel") {
		t.Errorf("another vendor: %v", err)
	}
}

// Every word has at most 32 names, and no name stands for two bits of one word.
func TestFeatureNames(t *testing.T) {
	for _, w := range featureWords() {
		names := strings.Fields(w.names)
		if len(names) > 32 {
			t.Errorf("leaf %#x.%d %v has %d names", w.leaf, w.index, w.reg, len(names))
		}
		seen := map[string]bool{"-": false}
		for _, n := range names {
			if seen[n] {
				t.Errorf("%s comes twice", n)
			}
			seen[n] = n != "-"
		}
	}
	for _, c := range []struct {
		leaf, index uint32
		reg         int
		bit         int
		name        string
	}{ // landmarks: a name that is left out moves all behind it
		{1, 0, ecx, 31, "hypervisor"}, {1, 0, edx, 26, "sse2"}, {7, 0, ebx, 31, "avx512vl"},
		{7, 0, ecx, 31, "pks"}, {7, 0, edx, 31, "ssbd"}, {7, 1, eax, 26, "lam"},
		{7, 1, edx, 19, "avx10"}, {0xd, 1, eax, 3, "xsaves"}, {0x80000001, 0, ecx, 29, "mwaitx"},
		{0x80000001, 0, edx, 29, "lm"}, {0x80000008, 0, ebx, 25, "virt_ssbd"},
		{0x80000021, 0, eax, 29, "srso_no"}, {0x40000001, 0, eax, 24, "kvm:clocksource_stable"},
		{0x80000007, 0, edx, 8, "invariant_tsc"}, {0xd, 0, eax, 18, "xcr0:amx_tiledata"},
	} {
		i := slices.IndexFunc(featureWords(), func(w featureWord) bool {
			return w.leaf == c.leaf && w.index == c.index && w.reg == c.reg
		})
		if i < 0 || featureWords()[i].name(c.bit) != c.name {
			t.Errorf("leaf %#x.%d %v bit %d is not %s", c.leaf, c.index, c.reg, c.bit, c.name)
		}
	}
}

func TestXSaveOfAnotherSize(t *testing.T) {
	host := []kvm.CPUIDEntry{{Function: 0xd, ECX: 2696}}
	area := make([]byte, 11008)
	if err := checkXSave(area, host); err != nil {
		t.Errorf("a larger area with nothing behind: %v", err)
	}
	area[8192] = 1
	var lacks *HostError
	if err := checkXSave(area, host); !errors.As(err, &lacks) {
		t.Errorf("a larger area: %v", err)
	}
	if err := checkXSave(area, []kvm.CPUIDEntry{{Function: 0xd, ECX: 11008}}); err != nil {
		t.Errorf("a host of the same size: %v", err)
	}
}
