package kvm

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// VM is one virtual machine. It ends when it and its vCPUs are closed.
type VM struct {
	descriptor
	mmapSize int
}

// SetTSSAddr names three free pages of guest physical memory below 4 GiB, which Intel hosts without
// unrestricted guest mode need for themselves.
func (vm *VM) SetTSSAddr(addr uint64) error {
	_, err := vm.call(ioSetTSSAddr, uintptr(addr))
	return err
}

// SetIdentityMapAddr names one more such page. To be called before the first vCPU is made.
func (vm *VM) SetIdentityMapAddr(addr uint64) error {
	return set(vm.descriptor, ioSetIdentityMapAddr, addr)
}

// SetMemoryRegion adds, changes or (Size 0) deletes a memory slot.
func (vm *VM) SetMemoryRegion(r MemoryRegion) error {
	if err := set(vm.descriptor, ioSetUserMemoryRegion, r); err != nil {
		return fmt.Errorf("slot %d, %#x bytes at %#x: %w", r.Slot, r.MemorySize, r.GuestPhysAddr, err)
	}
	return nil
}

// CreateVCPU makes vCPU number id and maps its kvm_run page.
func (vm *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := vm.call(ioCreateVCPU, uintptr(id))
	if err != nil {
		return nil, fmt.Errorf("vCPU %d: %w", id, err)
	}
	unix.CloseOnExec(fd)
	xsave, err := vm.Check(CapXSave2)
	if err != nil || xsave < legacyXSave {
		xsave = legacyXSave
	}
	run, err := unix.Mmap(fd, 0, vm.mmapSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("map kvm_run of vCPU %d: %w", id, err)
	}
	return &VCPU{descriptor{fd, fmt.Sprintf(" of vCPU %d", id)}, runPage{run}, xsave}, nil
}
