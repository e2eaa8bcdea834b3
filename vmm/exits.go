package vmm

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/kvm"
)

// exit serves an exit, on the vCPU's thread. An error ends the machine.
func (m *Machine) exit(c *vcpu, reason kvm.ExitReason) error {
	switch reason {
	case kvm.ExitIO:
		io, data, err := c.k.IO()
		if err != nil {
			return err
		}
		return m.ports.access(io, data, c.interrupt)
	case kvm.ExitIntr, kvm.ExitIRQWindowOpen:
		return nil
	case kvm.ExitMMIO:
		a := c.k.MMIO()
		if inRAM(m.facts.Regions, a.Addr) {
			// The address has a memory slot, and KVM found no page behind it. Hosts whose KVM
			// emulates the access say so in this way.
			return &fault{sign: "the guest's access to it found no page (MMIO exit inside RAM)",
				gfn: a.Addr / pageSize, known: true}
		}
		return fmt.Errorf("the guest accessed %d bytes at %#x, where nothing is", a.Len, a.Addr)
	case kvm.ExitMemoryFault:
		addr, _ := c.k.MemoryFault()
		return &fault{sign: "the guest's access to it found no page (memory fault exit)",
			gfn: addr / pageSize, known: true}
	case kvm.ExitInternalError:
		sub, data := c.k.InternalError()
		return &fault{sign: fmt.Sprintf("KVM gave up (internal error %d %#x)", sub, data), perhaps: true}
	case kvm.ExitShutdown:
		return &fault{sign: "the guest had a triple fault", perhaps: true}
	case kvm.ExitFailEntry:
		return fmt.Errorf("the hardware refused to enter the guest (reason %#x)", c.k.FailEntryReason())
	}
	return fmt.Errorf("the guest left by %s, which it has no reason for", reason)
}

// fault is an end of the guest that is or may be a page that could not be had. The signs differ
// with the host's KVM: with hardware paging KVM_RUN fails with EFAULT; where KVM emulates, it takes
// the access for a device; and a page table that cannot be read becomes a page fault in the guest,
// for which this guest has no handler.
type fault struct {
	sign    string
	gfn     uint64
	known   bool // gfn is the page
	perhaps bool // it may be the guest's own fault: look whether memory is lost
}

func (f *fault) Error() string { return f.sign }

// vcpuEnded ends the machine with what a vCPU died of.
func (m *Machine) vcpuEnded(c *vcpu, err error) {
	var f *fault
	if errors.Is(err, errFault) {
		f = &fault{sign: err.Error()}
	}
	if f != nil || errors.As(err, &f) {
		err = m.explain(c.k, f)
	}
	m.end(err)
}

// explain makes an error out of a fault. It runs on the vCPU's thread.
func (m *Machine) explain(k *kvm.VCPU, f *fault) error {
	regs, err := k.Regs()
	if err != nil {
		return fmt.Errorf("%s; then: %w", f.sign, err)
	}
	sregs, err := k.Sregs()
	if err != nil {
		return fmt.Errorf("%s; then: %w", f.sign, err)
	}
	lost := &MemoryLostError{GFN: f.gfn, Known: f.known, Sign: f.sign, RIP: regs.RIP, CR2: sregs.CR2}
	if !m.mem.private {
		// Memory of its own cannot be lost, so this is an error of the guest, of KVM or of ours.
		return fmt.Errorf("%s (rip %#x, cr2 %#x)", f.sign, regs.RIP, sregs.CR2)
	}
	if !lost.Known {
		m.search(lost, regs, sregs)
	}
	if f.perhaps && !lost.Known && lost.Err == nil {
		return fmt.Errorf("%s (rip %#x, cr2 %#x)", f.sign, regs.RIP, sregs.CR2)
	}
	return lost
}

// searchTime bounds a search: a server that neither answers nor dies must not hold up the end.
const searchTime = 500 * time.Millisecond

// search fills in what can be found out about a lost page within a bounded time.
func (m *Machine) search(lost *MemoryLostError, regs kvm.Regs, sregs kvm.Sregs) {
	type found struct {
		gfn   uint64
		known bool
		err   error
	}
	ch := make(chan found, 1)
	go func() {
		var f found
		f.gfn, f.known, f.err = m.searchLost(regs, sregs)
		if f.err == nil {
			f.err = m.mem.alive()
		}
		ch <- f
	}()
	timer := time.NewTimer(searchTime)
	defer timer.Stop()
	select {
	case f := <-ch:
		lost.GFN, lost.Known, lost.Err = f.gfn, f.known, f.err
	case <-timer.C:
		lost.Err = fmt.Errorf("the file system of %s does not answer", m.mem.file.Name())
	}
}

// searchLost looks for the page that the guest could not have: it reads, in the kernel, what the
// CPU would have read. Only when exactly one page fails is it known.
func (m *Machine) searchLost(regs kvm.Regs, sregs kvm.Sregs) (gfn uint64, known bool, err error) {
	failed := make(map[uint64]error)
	for _, virtual := range append([]uint64{regs.RIP, sregs.CR2}, pointers(regs)...) {
		var lost *MemoryLostError
		if err := m.mem.walk(sregs.CR3, virtual); errors.As(err, &lost) {
			failed[lost.GFN] = err
		}
	}
	for g, e := range failed {
		gfn, err = g, e
	}
	var lost *MemoryLostError
	if errors.As(err, &lost) {
		err = lost.Err
	}
	return gfn, len(failed) == 1, err
}

// pointers are the general registers: operands of the instruction are among them.
func pointers(regs kvm.Regs) []uint64 { g := regs.General(); return g[:] }

// alive says whether the file system of the memory file still answers. A mount without its server
// answers ENOTCONN.
func (m *memory) alive() error {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(m.file.Fd()), &st)
	if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EIO) {
		return fmt.Errorf("the file system of %s does not answer: %w", m.file.Name(), err)
	}
	return nil
}

// walk reads one byte at a guest virtual address, through the guest's page tables.
func (m *memory) walk(root, virtual uint64) error {
	table := root & pteAddress
	for level := 3; level >= 0; level-- {
		var entry [8]byte
		shift := 12 + 9*level
		index := virtual >> shift & (tableEntries - 1)
		if _, err := m.ReadAt(entry[:], int64(table+index*8)); err != nil {
			return err
		}
		e := le64(entry[:])
		if e&ptePresent == 0 {
			return fmt.Errorf("%#x is not mapped", virtual)
		}
		table = e & pteAddress
	}
	var b [1]byte
	_, err := m.ReadAt(b[:], int64(table|virtual&(pageSize-1)))
	return err
}
