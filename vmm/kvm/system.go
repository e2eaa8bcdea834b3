package kvm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is returned by [Open] if this host cannot run guests: no /dev/kvm, no permission to
// open it, or another architecture. Tests are skipped then.
var ErrUnavailable = errors.New("KVM is not available")

// System is an open /dev/kvm. Virtual machines made from it continue when it is closed.
type System struct {
	descriptor
	mmapSize int // bytes of a vCPU's kvm_run mapping
}

// Open opens /dev/kvm and checks that it has the only stable version of the interface, and the
// capabilities that the VMM needs.
func Open() (*System, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("%w: guests need an x86-64 host, and this one is %s", ErrUnavailable,
			runtime.GOARCH)
	}
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable,
			&os.PathError{Op: "open", Path: "/dev/kvm", Err: err})
	}
	s := &System{descriptor: descriptor{fd: fd}}
	if err := s.check(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *System) check() error {
	v, err := s.call(ioGetAPIVersion, 0)
	if err == nil && v != apiVersion {
		err = fmt.Errorf("/dev/kvm has interface version %d, not %d", v, apiVersion)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	need := map[Capability]string{
		CapUserMemory: "KVM_CAP_USER_MEMORY", CapExtCPUID: "KVM_CAP_EXT_CPUID",
		CapImmediateExit: "KVM_CAP_IMMEDIATE_EXIT", CapMPState: "KVM_CAP_MP_STATE",
		CapVCPUEvents: "KVM_CAP_VCPU_EVENTS", CapXSave: "KVM_CAP_XSAVE",
	}
	for c, name := range need {
		if n, err := s.Check(c); err != nil || n == 0 {
			return fmt.Errorf("%w: the kernel lacks %s", ErrUnavailable, name)
		}
	}
	if s.mmapSize, err = s.call(ioGetVCPUMmapSize, 0); err == nil && s.mmapSize < runMinSize {
		err = fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %d bytes are too few", s.mmapSize)
	}
	return err
}

// Check makes KVM_CHECK_EXTENSION: 0 means that the capability is missing. For a [VM] some results are
// more exact: that of [CapXSave2] is the size of this machine's XSAVE area in bytes.
func (d descriptor) Check(c Capability) (int, error) { return d.call(ioCheckExtension, uintptr(c)) }

// MSRIndexList returns the model-specific registers that this host can save and restore.
func (s *System) MSRIndexList() ([]uint32, error) {
	return readList[uint32](s.descriptor, ioGetMSRIndexList, 4)
}

// SupportedCPUID returns the CPUID table that KVM supports on this host.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	return cpuid(s.descriptor, ioGetSupportedCPUID)
}

// CreateVM makes an empty virtual machine: no memory, no CPU, no interrupt controller.
func (s *System) CreateVM() (*VM, error) {
	fd, err := s.call(ioCreateVM, 0)
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	return &VM{descriptor{fd: fd}, s.mmapSize}, nil
}

// SecondLevelTables says whether KVM's module reports that it uses second-level tables (Intel's EPT,
// AMD's NPT), so that the CPU walks the guest's own page tables. If not, KVM probably shadows them.
func SecondLevelTables() bool {
	for _, parameter := range []string{"kvm_intel/parameters/ept", "kvm_amd/parameters/npt"} {
		text, err := os.ReadFile("/sys/module/" + parameter)
		if value := strings.TrimSpace(string(text)); err == nil && (value == "Y" || value == "1") {
			return true
		}
	}
	return false
}

// VM is one virtual machine. It ends when it and its vCPUs are closed.
type VM struct {
	descriptor
	mmapSize int
}

// SetTSSAddr sets the address of three free pages of guest physical memory below 4 GiB, which Intel
// hosts without unrestricted guest mode need for themselves.
func (vm *VM) SetTSSAddr(addr uint64) error {
	_, err := vm.call(ioSetTSSAddr, uintptr(addr))
	return err
}

// SetIdentityMapAddr sets the address of one more such page. It must be called before the first vCPU is made.
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
