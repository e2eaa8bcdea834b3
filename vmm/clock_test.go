package vmm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
)

// rewrite changes the saved state of a checkpoint.
func rewrite(t *testing.T, dir string, change func(*state.Machine)) state.Machine {
	t.Helper()
	c, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := c.Machine
	change(&s)
	b, _, err := s.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, state.StateFile), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// The guest's clock stops between checkpoint and restore, or follows the wall clock, by option.
func TestClockModes(t *testing.T) {
	dir := checkpointed(t, spec("registers"), ram.MinMemory, 10)
	const away = 3 * time.Hour
	s := rewrite(t, dir, func(s *state.Machine) {
		if s.Chips.Clock.Flags&kvm.ClockRealtime == 0 {
			t.Error("the state does not have the wall clock")
		}
		s.Chips.Clock.Realtime -= uint64(away)
	})
	for mode, want := range map[state.ClockMode]time.Duration{"": 0, state.ClockResume: 0,
		state.ClockRealtime: away} {
		l, err := load(dir, Config{Log: testLog(t), Clock: mode})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := l.vm.Clock()
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Duration(c.Clock-s.Chips.Clock.Clock) - want; d < 0 || d > time.Minute {
			t.Errorf("mode %q: %v beside %v", mode, d, want)
		}
	}
	if _, err := load(dir, Config{Log: testLog(t), Clock: "yesterday"}); err == nil {
		t.Error("a mode that does not exist was taken")
	}
	rewrite(t, dir, func(s *state.Machine) { s.Chips.Clock.Flags &^= kvm.ClockRealtime })
	var lacks *state.HostError
	_, err := load(dir, Config{Log: testLog(t), Clock: state.ClockRealtime})
	if !errors.As(err, &lacks) {
		t.Errorf("a state without the wall clock: %v", err)
	}
}

// An armed deadline survives, although setting it in a wrong order has no effect and gives no error.
func TestDeadlineSurvives(t *testing.T) {
	m := newTestMachine(t, spec("registers"), ram.MinMemory)
	c := m.vcpus[0]
	if err := c.Do(func() error { return knownState(c.KVM) }); err != nil {
		t.Fatal(err)
	}
	dir := checkpoint(t, m)
	l, err := loadDir(dir, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := []kvm.MSREntry{{Index: tscDeadline}}
	c = l.vcpus[0]
	if err := c.Do(func() error { return c.KVM.MSRs(got) }); err != nil || got[0].Data != 1<<60 {
		t.Errorf("deadline %#x, %v", got[0].Data, err)
	}
}

// A line that a device asserts is in the saved state, and so is an edge that waits at the I/O APIC.
func TestInterruptLines(t *testing.T) {
	m := newTestMachine(t, spec("registers"), ram.MinMemory)
	for _, gsi := range []uint32{5, 17} {
		if err := m.vm.SetIRQLine(gsi, true); err != nil {
			t.Fatal(err)
		}
	}
	l, err := loadDir(checkpoint(t, m), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	chip, err := l.vm.IRQChip(kvm.IOAPIC)
	if err != nil {
		t.Fatal(err)
	}
	if irr := chip.IOAPIC().IRR; irr&(1<<5) == 0 || irr&(1<<17) == 0 || irr&(1<<6) != 0 {
		t.Errorf("lines %#x", irr)
	}
}
