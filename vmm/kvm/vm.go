package kvm

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// VM is one virtual machine.
type VM struct {
	fd       int
	mmapSize int
}

// Close closes the machine's descriptor. The machine ends when its vCPUs are closed too.
func (vm *VM) Close() error { return unix.Close(vm.fd) }

// Check is KVM_CHECK_EXTENSION on the machine, which for some capabilities knows more than the
// system does: [CapXSave2] answers with the size of this machine's XSAVE area.
func (vm *VM) Check(c Capability) (int, error) {
	return ioctl(vm.fd, ioCheckExtension, uintptr(c))
}

// SetTSSAddr names three free pages of guest physical memory below 4 GiB, which Intel hosts without
// unrestricted guest mode need for themselves.
func (vm *VM) SetTSSAddr(addr uint64) error {
	if _, err := ioctl(vm.fd, ioSetTSSAddr, uintptr(addr)); err != nil {
		return fmt.Errorf("KVM_SET_TSS_ADDR: %w", err)
	}
	return nil
}

// SetIdentityMapAddr names one more such page. To be called before the first vCPU is made.
func (vm *VM) SetIdentityMapAddr(addr uint64) error {
	if _, err := ioctlStruct(vm.fd, ioSetIdentityMapAddr, &addr); err != nil {
		return fmt.Errorf("KVM_SET_IDENTITY_MAP_ADDR: %w", err)
	}
	return nil
}

// SetMemoryRegion adds, changes or (Size 0) deletes a memory slot.
func (vm *VM) SetMemoryRegion(r MemoryRegion) error {
	if _, err := ioctlStruct(vm.fd, ioSetUserMemoryRegion, &r); err != nil {
		return fmt.Errorf("KVM_SET_USER_MEMORY_REGION slot %d, %#x bytes at %#x: %w",
			r.Slot, r.MemorySize, r.GuestPhysAddr, err)
	}
	return nil
}

// CreateVCPU makes vCPU number id and maps its kvm_run page.
func (vm *VM) CreateVCPU(id int) (*VCPU, error) {
	fd, err := ioctl(vm.fd, ioCreateVCPU, uintptr(id))
	if err != nil {
		return nil, fmt.Errorf("KVM_CREATE_VCPU %d: %w", id, err)
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
	return &VCPU{fd: fd, id: id, run: runPage{run}, xsaveSize: xsave}, nil
}
