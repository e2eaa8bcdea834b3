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

// scanned is a machine as the access-bit scanner sees it. One goroutine uses it.
//
// From Pause to Resume it holds the machine's control lock: nobody saves, resumes or ends the
// machine in the middle of a scan.
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

// What a touch costs after each way to flush: a TLB miss, or a shadow entry (or second-level entry)
// that has to be made again.
const (
	refaultTLB  = 100 * time.Nanosecond
	refaultSlot = 2400 * time.Nanosecond
)

// Flushes lists the cheapest way first. Which of them works depends on how the
// host's KVM translates: with second-level tables (EPT, NPT) the CPU walks the guest's own tables,
// and only its TLB stands between; with shadow tables the guest's are not looked at as long as
// there is a shadow entry, and these go with the memory slot.
//
// Where KVM's modules do not say that they use second-level tables the first is not tried: it would
// be found out not to work, but the test costs the guest some pauses.
func (s *scanned) Flushes() []scan.Flush {
	slots := scan.Flush{Name: "memory slots made anew", Do: s.renewSlots, Refault: refaultSlot}
	if !kvm.SecondLevelTables() {
		return []scan.Flush{slots}
	}
	tlb := scan.Flush{Name: "TLB flush by control registers", Do: s.flushTLB, Refault: refaultTLB}
	return []scan.Flush{tlb, slots}
}

// flushTLB changes a bit of CR4 that concerns the TLB alone and puts it back: KVM flushes the vCPU's
// translations when a paging bit changes (x86.c, __set_sregs), and does nothing when none does.
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

// renewSlots deletes the memory slots and adds them again: KVM drops all that it derived from them.
func (s *scanned) renewSlots() error {
	for i := range s.m.facts.Regions {
		if err := s.m.vm.SetMemoryRegion(kvm.MemoryRegion{Slot: uint32(i)}); err != nil {
			return err
		}
	}
	return s.m.addSlots()
}

// addSlots gives KVM the machine's memory.
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

// Present implements scan.Presence. Of a machine that is mapped from a checkpoint these are the pages
// that it has touched: to look at others would bring them in, and count them as touched.
func (s *scanned) Present() (*wss.Bitmap, error) {
	touched, _, err := s.m.mem.Scan()
	if touched != nil || err != nil {
		return touched, err
	}
	return s.m.mem.Written()
}

// scanAccess estimates the working set of a running guest by the access bits of its page tables. It
// takes as long as it looks back.
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
