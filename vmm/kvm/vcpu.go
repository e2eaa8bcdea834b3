package kvm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// legacyXSave is the size of struct kvm_xsave. Hosts with larger areas (AMX) report that by CapXSave2.
const legacyXSave = 4096

// VCPU is one virtual CPU. See the package documentation for which thread may call what.
type VCPU struct {
	descriptor
	run       runPage
	xsaveSize int // bytes
}

// Close unmaps the kvm_run page and closes the vCPU.
func (c *VCPU) Close() error {
	return errors.Join(unix.Munmap(c.run.b), c.descriptor.Close())
}

// RequestExit makes the current or next KVM_RUN return EINTR, if the thread also gets the signal that
// its mask allows. Any goroutine may call it.
func (c *VCPU) RequestExit() { c.run.requestExit(true) }

// ClearExitRequest lets KVM_RUN enter the guest again. Any goroutine may call it.
func (c *VCPU) ClearExitRequest() { c.run.requestExit(false) }

// Run enters the guest. It returns the reason of the exit, or an error: unix.EINTR if an exit was
// requested, unix.EFAULT if a page of guest memory could not be read. With EFAULT the reason is
// ExitMemoryFault if this kernel reports the address.
func (c *VCPU) Run() (ExitReason, error) {
	_, err := c.call(ioRun, 0)
	if err != nil && !errors.Is(err, unix.EFAULT) {
		return 0, err
	}
	return ExitReason(c.run.u32(runExitReason)), err
}

// CompleteExit finishes the port or memory-mapped access that the last exit reported, without running
// the guest: the kernel writes the result of such an access into the vCPU's registers only when KVM_RUN
// is entered again. done is true when nothing is left. Otherwise the call caused another exit (the next
// element of a string instruction) for the returned reason, which the caller must handle and complete,
// too.
func (c *VCPU) CompleteExit() (reason ExitReason, done bool, err error) {
	c.RequestExit()
	reason, err = c.Run()
	if errors.Is(err, unix.EINTR) {
		return 0, true, nil
	}
	return reason, false, err
}

// IO describes the access of an ExitIO. The data is a view of the shared page: for an OUT it is what
// the guest wrote, for an IN the caller writes the answer into it.
func (c *VCPU) IO() (IO, []byte, error) {
	b := c.run.b
	io := IO{
		Out:   b[runIO] == 1,
		Size:  int(b[runIO+1]),
		Port:  uint16(b[runIO+2]) | uint16(b[runIO+3])<<8,
		Count: int(c.run.u32(runIO + 4)),
	}
	off, n := c.run.u64(runIO+8), uint64(io.Size)*uint64(io.Count)
	if off > uint64(len(b)) || n > uint64(len(b))-off {
		return io, nil, fmt.Errorf("a port access of %d x %d bytes lies outside of kvm_run", io.Count,
			io.Size)
	}
	return io, b[off : off+n], nil
}

// MMIO describes the access of an ExitMMIO. The data is a view of the shared page: for a write it is
// what the guest wrote, for a read the caller writes the answer into it.
func (c *VCPU) MMIO() (MMIO, []byte, error) {
	b, n := c.run.b, c.run.u32(runMMIO+16)
	m := MMIO{Addr: c.run.u64(runMMIO), Write: b[runMMIO+20] != 0}
	if n > 8 {
		return m, nil, fmt.Errorf("a memory-mapped access of %d bytes at %#x is not possible", n, m.Addr)
	}
	return m, b[runMMIO+8 : runMMIO+8+int(n)], nil
}

// MemoryFault returns address and size of an ExitMemoryFault, in bytes.
func (c *VCPU) MemoryFault() (addr, size uint64) {
	return c.run.u64(runMemoryFault + 8), c.run.u64(runMemoryFault + 16)
}

// InternalError returns the suberror of an ExitInternalError and its data words.
func (c *VCPU) InternalError() (suberror uint32, data []uint64) {
	n := min(c.run.u32(runInternal+4), 16)
	for i := range n {
		data = append(data, c.run.u64(runInternal+8+int(i)*8))
	}
	return c.run.u32(runInternal), data
}

// FailEntryReason returns the hardware's reason for an ExitFailEntry.
func (c *VCPU) FailEntryReason() uint64 { return c.run.u64(runInternal) }

// SetSignalMask blocks every signal except the given one during KVM_RUN.
func (c *VCPU) SetSignalMask(except unix.Signal) error {
	// struct kvm_signal_mask: length of the kernel's sigset_t, then the set itself.
	buf := make([]byte, 4+8)
	putU32(buf, 8)
	mask := ^uint64(0) &^ (1 << (uint(except) - 1))
	putU32(buf[4:], uint32(mask))
	putU32(buf[8:], uint32(mask>>32))
	_, err := pass(c.descriptor, ioSetSignalMask, &buf[0])
	return err
}
