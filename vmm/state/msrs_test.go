package state

import (
	"slices"
	"testing"

	"github.com/thawfs/thaw/vmm/kvm"
)

func TestMSRNames(t *testing.T) {
	for index, want := range map[uint32]string{0x10: "TSC", 0x6e0: "TSC_DEADLINE", 0x200: "MTRR_PHYS0",
		0x20f: "MTRR_PHYS0+15", 0x210: "MSR_0x210", 0x47f: "MC0_CTL+127", 0xc0000103: "TSC_AUX",
		0x4b564d01: "KVM_SYSTEM_TIME"} {
		if got := msrName(index); got != want {
			t.Errorf("%#x is %s, want %s", index, got, want)
		}
	}
	seen := make(map[uint32]bool)
	for _, r := range savedMSRs() {
		for i := range r.count {
			if seen[r.first+i] {
				t.Errorf("%#x comes twice", r.first+i)
			}
			seen[r.first+i] = true
		}
	}
}

func TestDeadlineLast(t *testing.T) {
	list := []kvm.MSREntry{{Index: 1}, {Index: msrTSCDeadline, Data: 9}, {Index: msrTSC}, {Index: 2}}
	got := deadlineLast(list)
	if len(got) != 4 || got[3] != list[1] || got[1].Index != msrTSC {
		t.Errorf("%+v", got)
	}
	if got := deadlineLast(list[2:]); !slices.Equal(got, list[2:]) {
		t.Errorf("without the timer: %+v", got)
	}
}

func TestKeepDeadline(t *testing.T) {
	apic := func(mode uint32) *kvm.LAPIC {
		l := new(kvm.LAPIC)
		l.SetRegister(lapicLVTTimer, mode|0xec)
		return l
	}
	for _, c := range []struct {
		what           string
		l              *kvm.LAPIC
		deadline, want uint64
	}{
		{"expired, not delivered", apic(lapicTimerDeadline), 0, 1000},
		{"armed", apic(lapicTimerDeadline), 5000, 5000},
		{"one-shot", apic(0), 0, 0},
		{"periodic", apic(1 << 17), 0, 0},
		{"no local APIC", nil, 0, 0},
	} {
		list := []kvm.MSREntry{{Index: msrTSC, Data: 1000}, {Index: msrTSCDeadline, Data: c.deadline}}
		keepDeadline(list, c.l)
		if list[1].Data != c.want {
			t.Errorf("%s: %d, want %d", c.what, list[1].Data, c.want)
		}
	}
}
