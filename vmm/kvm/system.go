package kvm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is returned by [Open] when this host cannot run guests at all: no /dev/kvm, no
// right to open it, or another architecture. Tests skip on it.
var ErrUnavailable = errors.New("KVM is not available")

// System is an open /dev/kvm.
type System struct {
	fd       int
	mmapSize int // bytes of a vCPU's kvm_run mapping
}

// Open opens /dev/kvm and checks that it speaks the one stable version of the interface.
func Open() (*System, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("%w: guests need an x86-64 host, this one is %s", ErrUnavailable,
			runtime.GOARCH)
	}
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable,
			&os.PathError{Op: "open", Path: "/dev/kvm", Err: err})
	}
	s := &System{fd: fd}
	if err := s.check(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *System) check() error {
	v, err := ioctl(s.fd, ioGetAPIVersion, 0)
	if err != nil {
		return fmt.Errorf("%w: KVM_GET_API_VERSION: %w", ErrUnavailable, err)
	}
	if v != apiVersion {
		return fmt.Errorf("%w: /dev/kvm speaks version %d, not %d", ErrUnavailable, v, apiVersion)
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
	s.mmapSize, err = ioctl(s.fd, ioGetVCPUMmapSize, 0)
	if err != nil {
		return fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %w", err)
	}
	if s.mmapSize < runMinSize {
		return fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %d bytes are too few", s.mmapSize)
	}
	return nil
}

// Close closes /dev/kvm. Virtual machines made from it go on.
func (s *System) Close() error { return unix.Close(s.fd) }

// Check is KVM_CHECK_EXTENSION on the system: 0 says no.
func (s *System) Check(c Capability) (int, error) {
	return ioctl(s.fd, ioCheckExtension, uintptr(c))
}

// MSRIndexList is KVM_GET_MSR_INDEX_LIST: the registers that this host can save and restore.
func (s *System) MSRIndexList() ([]uint32, error) {
	for n := 256; ; n *= 2 {
		buf := make([]byte, 4+4*n)
		putU32(buf, uint32(n))
		_, err := ioctlBytes(s.fd, ioGetMSRIndexList, buf)
		if errors.Is(err, unix.E2BIG) && n < maxList {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("KVM_GET_MSR_INDEX_LIST: %w", err)
		}
		list := make([]uint32, getU32(buf))
		for i := range list {
			list[i] = getU32(buf[4+4*i:])
		}
		return list, nil
	}
}

// SupportedCPUID is KVM_GET_SUPPORTED_CPUID: what a guest may be told about its CPU on this host.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	return getCPUID(s.fd, ioGetSupportedCPUID, "KVM_GET_SUPPORTED_CPUID")
}

// CreateVM makes an empty virtual machine: no memory, no CPU, no interrupt controller.
func (s *System) CreateVM() (*VM, error) {
	fd, err := ioctl(s.fd, ioCreateVM, 0)
	if err != nil {
		return nil, fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	unix.CloseOnExec(fd)
	return &VM{fd: fd, mmapSize: s.mmapSize}, nil
}

// SecondLevelTables says whether KVM's module is known to translate guest memory by second-level
// tables (Intel's EPT, AMD's NPT), so that the CPU walks the guest's own page tables. Otherwise KVM
// shadows them, as far as is known.
func SecondLevelTables() bool {
	for _, parameter := range []string{"kvm_intel/parameters/ept", "kvm_amd/parameters/npt"} {
		text, err := os.ReadFile("/sys/module/" + parameter)
		if value := strings.TrimSpace(string(text)); err == nil && (value == "Y" || value == "1") {
			return true
		}
	}
	return false
}
