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

// fault is a failure of the guest that was, or may have been, caused by a page that could not be read.
// How it shows depends on the host's KVM: with hardware paging KVM_RUN fails with EFAULT; a KVM that
// emulates the access reports it as an access to a device; and a page table that cannot be read becomes
// a page fault in the guest, for which a guest program has no handler.
type fault struct {
	sign    string
	gfn     uint64
	known   bool // gfn is the page
	perhaps bool // it may be the guest's own fault: look whether memory is lost
	err     error
}

func (f *fault) Error() string { return f.sign }
func (f *fault) Unwrap() error { return f.err }

// vcpuEnded ends the machine with the error that ended a vCPU.
func (m *Machine) vcpuEnded(c *vcpu.Thread, err error) {
	if f := suspect(err); f != nil {
		err = m.explain(c.KVM, f)
	}
	m.end(err)
}

// suspect returns a fault if an error may have been caused by a page that could not be read. Nearly
// every error may: a guest that lost memory can behave in any way. Excluded are only the guest's own
// reports and errors whose cause is known.
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

// explain turns a fault into the error that is reported. It runs on the vCPU's thread.
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
		// Memory that is not mapped from files cannot be lost, so this is an error of the guest, of KVM
		// or of this VMM.
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

// searchTime bounds a search: a server that hangs must not delay the end of the machine.
const searchTime = 500 * time.Millisecond

// search fills in which page was lost and why, as far as that can be found out within searchTime.
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

// searchLost looks for the page that could not be read: it reads, by system calls, the addresses that
// the CPU may have accessed. The page is known only if exactly one page fails.
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

// readVirtual reads one byte at a guest virtual address, through the guest's page tables. Without
// 64-bit paging the address is taken as physical.
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

// tables implements [pagetable.Memory] for a guest's memory.
type tables struct{ io.ReaderAt }

// ReadTable implements pagetable.Memory.
func (m tables) ReadTable(frame uint64, t *pagetable.Table) (bool, error) {
	_, err := m.ReadAt(t[:], int64(frame*pageSize))
	return err == nil, err
}
