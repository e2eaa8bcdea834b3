package firecracker

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/userfaultfd.h.
const (
	// FeatureRemove tells of memory that is given back, FeatureFork of forks, FeatureRemap of memory that moves,
	// FeatureUnmap of memory that is unmapped.
	FeatureFork   = 1 << 1
	FeatureRemap  = 1 << 2
	FeatureRemove = 1 << 3
	FeatureUnmap  = 1 << 6

	// NoFeatures asks for none.
	NoFeatures = 1 << 63

	ioAPI      = 0xc018aa3f
	ioRegister = 0xc020aa00
)

// userfault makes a userfaultfd as Firecracker does.
func userfault(features uint64) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	arg := [3]uint64{0xaa, features}
	return int(fd), ioctl(int(fd), ioAPI, unsafe.Pointer(&arg))
}

// register registers memory for missing pages.
func register(fd int, mem []byte) error {
	arg := [4]uint64{address(mem), uint64(len(mem)), 1}
	return ioctl(fd, ioRegister, unsafe.Pointer(&arg))
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

func address(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))) }

// mincore sets bit 0 of a byte of vec for each page that is there.
func mincore(mem, vec []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(address(mem)), uintptr(len(mem)),
		uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if errno != 0 {
		return errno
	}
	return nil
}
