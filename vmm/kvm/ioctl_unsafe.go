package kvm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The three forms of ioctl(2) below use unix.Syscall and not its raw form, so that the scheduler
// knows of them: a vCPU that stays in the guest for minutes holds up neither other goroutines nor
// the collector. The conversion of a pointer stands in the call itself, as package unsafe demands:
// only there the compiler keeps the object alive and in its place.

// ioctl passes an integer.
func ioctl(fd int, req, arg uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, arg)
		if again(req, errno) {
			continue
		}
		return result(r, errno)
	}
}

// ioctlStruct passes a pointer to a structure of the size that is coded into req.
func ioctlStruct[T any](fd int, req uintptr, v *T) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(v)))
		if again(req, errno) {
			continue
		}
		return result(r, errno)
	}
}

// ioctlBytes passes a pointer to a structure with a tail of variable length.
func ioctlBytes(fd int, req uintptr, b []byte) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req,
			uintptr(unsafe.Pointer(unsafe.SliceData(b))))
		if again(req, errno) {
			continue
		}
		return result(r, errno)
	}
}

// again is true for a call that a signal of the Go runtime interrupted. For KVM_RUN an
// interruption is an answer.
func again(req uintptr, errno unix.Errno) bool { return errno == unix.EINTR && req != ioRun }

func result(r uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return int(r), errno
	}
	return int(r), nil
}
