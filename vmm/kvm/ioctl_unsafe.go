package kvm

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// descriptor is a file descriptor of KVM.
type descriptor struct {
	fd int
	of string // for errors: " of vCPU 2", or ""
}

// Close closes it.
func (d descriptor) Close() error { return unix.Close(d.fd) }

// The two forms of ioctl(2) below use unix.Syscall and not its raw form, so that the scheduler
// knows of them: a vCPU that stays in the guest for minutes holds up neither other goroutines nor
// the collector. The conversion of a pointer stands in the call itself, as package unsafe demands:
// only there the compiler keeps the object alive and in its place.

// call passes an integer.
func (d descriptor) call(req request, arg uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), req.number, arg)
		if !again(req, errno) {
			return d.result(req, r, errno)
		}
	}
}

// pass passes a pointer to a structure of the size that is coded into req, or to the first byte of
// one that has a tail of variable length.
func pass[T any](d descriptor, req request, v *T) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), req.number, uintptr(unsafe.Pointer(v)))
		if !again(req, errno) {
			return d.result(req, r, errno)
		}
	}
}

func get[T any](d descriptor, req request) (v T, err error) {
	_, err = pass(d, req, &v)
	return v, err
}

func set[T any](d descriptor, req request, v T) error {
	_, err := pass(d, req, &v)
	return err
}

// again is true for a call that a signal of the Go runtime interrupted. For KVM_RUN an
// interruption is an answer.
func again(req request, errno unix.Errno) bool { return errno == unix.EINTR && req != ioRun }

func (d descriptor) result(req request, r uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return 0, fmt.Errorf("%s%s: %w", req.name, d.of, errno)
	}
	return int(r), nil
}
