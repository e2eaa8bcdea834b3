package vmm

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/thawfs/thaw/vmm/device"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/vmm/vcpu"
	"github.com/thawfs/thaw/wss/pagetable"
)

// fault is an end of the guest whose cause is, or may be, a page that could not be read. The signs differ
// with the host's KVM: with hardware paging KVM_RUN fails with EFAULT; where KVM emulates, it takes
// the access for a device; and a page table that cannot be read becomes a page fault in the guest,
// for which this guest has no handler.
type fault struct {
	sign    string
	gfn     uint64
	known   bool // gfn is the page
	perhaps bool // it may be the guest's own fault: look whether memory is lost
	err     error
}

func (f *fault) Error() string { return f.sign }
func (f *fault) Unwrap() error { return f.err }

// vcpuEnded ends the machine with what a vCPU died of.
func (m *Machine) vcpuEnded(c *vcpu.Thread, err error) {
	if f := suspect(err); f != nil {
		err = m.explain(c.KVM, f)
	}
	m.end(err)
}

// suspect says whether an end may come from a page that could not be read. Nearly any may: a guest
// without its memory does what it likes. Only what it says of itself is believed, and what is known
// already.
func suspect(err error) *fault {
	var f *fault
	var lost *ram.LostError
	var wrong *WrongByteError
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, vcpu.ErrFault):
		return &fault{sign: err.Error()}
	case errors.As(err, &guestDone{}), errors.As(err, &lost), errors.As(err, &wrong),
		errors.Is(err, device.ErrPowerOff), errors.Is(err, device.ErrReset):
		return nil
	}
	return &fault{sign: err.Error(), perhaps: true, err: err}
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
	lost := &ram.LostError{GFN: f.gfn, Known: f.known, Sign: f.sign, RIP: regs.RIP, CR2: sregs.CR2}
	if !m.mem.Mapped() {
		// Memory of its own cannot be lost, so this is an error of the guest, of KVM or of ours.
		return fmt.Errorf("%w (rip %#x, cr2 %#x)", f, regs.RIP, sregs.CR2)
	}
	if !lost.Known {
		m.search(lost, regs, sregs)
	}
	if f.perhaps && !lost.Known && lost.Err == nil {
		return fmt.Errorf("%w (rip %#x, cr2 %#x)", f, regs.RIP, sregs.CR2)
	}
	return lost
}

// searchTime bounds a search: a server that neither answers nor dies must not hold up the end.
const searchTime = 500 * time.Millisecond

// search fills in what can be found out about a lost page within a bounded time.
func (m *Machine) search(lost *ram.LostError, regs kvm.Regs, sregs kvm.Sregs) {
	found, done := within(searchTime, func() ram.LostError {
		f := m.searchLost(regs, sregs)
		if f.Err == nil {
			f.Err = m.mem.Alive()
		}
		return f
	})
	if !done {
		found.Err = errors.New("its file system does not answer")
	}
	lost.GFN, lost.Known, lost.Err = found.GFN, found.Known, found.Err
}

// searchLost looks for the page that the guest could not have: it reads, in the kernel, what the
// CPU would have read. Only when exactly one page fails is it known.
func (m *Machine) searchLost(regs kvm.Regs, sregs kvm.Sregs) (found ram.LostError) {
	failed := make(map[uint64]bool)
	general := regs.General() // operands of the instruction are among them
	for _, virtual := range append([]uint64{regs.RIP, sregs.CR2}, general[:]...) {
		var lost *ram.LostError
		if err := readVirtual(m.mem, sregs, virtual); errors.As(err, &lost) {
			failed[lost.GFN] = true
			found.GFN, found.Err = lost.GFN, lost.Err
		}
	}
	found.Known = len(failed) == 1
	return found
}

// readVirtual reads one byte at a guest virtual address, through the guest's page tables. A guest
// without such tables has physical addresses.
func readVirtual(mem io.ReaderAt, sregs kvm.Sregs, virtual uint64) error {
	gpa := virtual
	if mode, root, ok := state.LongMode(sregs); ok {
		leaf, ok, err := pagetable.Translate(tables{mem}, mode, root, virtual)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%#x is not mapped", virtual)
		}
		gpa = leaf.Frame*pageSize + virtual - leaf.Virtual
	}
	_, err := mem.ReadAt(make([]byte, 1), int64(gpa))
	return err
}

// tables are the page tables in a guest's memory.
type tables struct{ io.ReaderAt }

// ReadTable implements pagetable.Memory.
func (m tables) ReadTable(frame uint64, t *pagetable.Table) (bool, error) {
	_, err := m.ReadAt(t[:], int64(frame*pageSize))
	return err == nil, err
}
