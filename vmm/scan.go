package vmm

import (
	"context"
	"errors"
	"time"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/scan"
)

// scanned implements scan.Guest for a machine. It is used by one goroutine.
//
// From Pause to Resume it holds the machine's control lock, so nothing else saves, resumes or closes
// the machine during a sweep.
type scanned struct {
	m       *Machine
	running bool // before the pause
}

var _ scan.Guest = (*scanned)(nil)

func (s *scanned) ReadAt(p []byte, gpa int64) (int, error) { return s.m.mem.ReadAt(p, gpa) }

func (s *scanned) WriteAt(p []byte, gpa int64) (int, error) { return s.m.mem.WriteAt(p, gpa) }

func (s *scanned) RAM() []scan.Region {
	var list []scan.Region
	for _, r := range s.m.facts.Regions {
		list = append(list, scan.Region{GFN: r.GPA / pageSize, Count: r.Size / pageSize,
			Page: r.GPA / pageSize})
	}
	return list
}

func (s *scanned) Pause(context.Context) error {
	s.m.control.Lock()
	s.running = s.m.is(phaseRunning)
	if err := s.m.pause(); err != nil {
		s.m.control.Unlock()
		return err
	}
	return nil
}

func (s *scanned) Resume() error {
	defer s.m.control.Unlock()
	if !s.running {
		return nil
	}
	return s.m.resume()
}

func (s *scanned) CPUs() ([]scan.CPU, error) {
	cpus := make([]scan.CPU, len(s.m.vcpus))
	err := s.m.eachVCPU("registers of", func(i int, k *kvm.VCPU) error {
		sregs, err := k.Sregs()
		if err != nil {
			return err
		}
		regs, err := k.Regs()
		if err != nil {
			return err
		}
		mp, err := k.MPState()
		cpus[i] = scan.CPU{CR0: sregs.CR0, CR3: sregs.CR3, CR4: sregs.CR4, EFER: sregs.EFER,
			RIP: sregs.CS.Base + regs.RIP, Halted: mp.State != kvm.MPRunnable}
		return err
	})
	return cpus, err
}

// The cost of the next touch of a page after each kind of flush: a TLB miss, or a shadow or
// second-level entry that KVM has to make again.
const (
	refaultTLB  = 100 * time.Nanosecond
	refaultSlot = 2400 * time.Nanosecond
)

// Flushes lists the cheapest way first. Which of them works depends on how the host's KVM translates
// addresses. With second-level tables (EPT, NPT) the CPU walks the guest's own tables, and a TLB flush
// is enough. With shadow tables the CPU does not read the guest's tables as long as a shadow entry
// exists, and KVM drops those when the memory slot is deleted.
//
// If KVM's modules do not report second-level tables, the TLB flush is not offered: it would fail its
// test, which costs the guest some pauses.
func (s *scanned) Flushes() []scan.Flush {
	slots := scan.Flush{Name: "memory slots deleted and added again", Do: s.renewSlots, Refault: refaultSlot}
	if !kvm.SecondLevelTables() {
		return []scan.Flush{slots}
	}
	tlb := scan.Flush{Name: "TLB flush by control registers", Do: s.flushTLB, Refault: refaultTLB}
	return []scan.Flush{tlb, slots}
}

// flushTLB changes a bit of CR4 that affects only the TLB, and changes it back: KVM flushes the vCPU's
// translations if a paging bit changes (x86.c, __set_sregs), and only then.
func (s *scanned) flushTLB() error {
	return s.m.eachVCPU("flush the TLB of", func(_ int, k *kvm.VCPU) error {
		sregs, err := k.Sregs()
		if err != nil {
			return err
		}
		changed := sregs
		changed.CR4 ^= kvm.CR4PGE
		return errors.Join(k.SetSregs(changed), k.SetSregs(sregs))
	})
}

// renewSlots deletes the memory slots and adds them again, so that KVM drops all translations
// derived from them.
func (s *scanned) renewSlots() error {
	for i := range s.m.facts.Regions {
		if err := s.m.vm.SetMemoryRegion(kvm.MemoryRegion{Slot: uint32(i)}); err != nil {
			return err
		}
	}
	return s.m.addSlots()
}

// addSlots makes KVM memory slots for the machine's RAM.
func (m *Machine) addSlots() error {
	base := m.mem.Address()
	for i, r := range m.facts.Regions {
		err := m.vm.SetMemoryRegion(kvm.MemoryRegion{Slot: uint32(i), GuestPhysAddr: r.GPA,
			MemorySize: r.Size, UserspaceAddr: base + r.GPA})
		if err != nil {
			return err
		}
	}
	return nil
}

// Present implements scan.Presence. If the memory is mapped from a checkpoint, these are the pages that
// the machine has touched: reading others would load them and count them as touched.
func (s *scanned) Present() (*wss.Bitmap, error) {
	touched, _, err := s.m.mem.Scan()
	if touched != nil || err != nil {
		return touched, err
	}
	return s.m.mem.Written()
}

// scanAccess estimates the working set of a running guest by the access bits of its page tables. It
// takes o.Within or longer.
func scanAccess(ctx context.Context, g scan.Guest, o scanOptions) (set *wss.Set,
	spaces state.AddressSpaces, stats api.ScanStats, err error) {
	tables, err := scan.NewTables(g, scan.TableOptions{})
	if err != nil {
		return nil, spaces, stats, err
	}
	s := scan.New(tables, scan.Options{Within: o.Within, Budget: o.Budget})
	if set, err = s.Estimate(ctx, o.Within); err != nil {
		return nil, spaces, stats, err
	}
	spaces.Roots, spaces.Complete = tables.Roots()
	return set, spaces, api.ScanStats{Pages: set.Pages(), Way: set.Way, Stats: s.Stats()}, nil
}
