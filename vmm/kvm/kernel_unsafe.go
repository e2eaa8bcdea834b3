package kvm

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
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

// The two forms of ioctl(2) below use unix.Syscall, not RawSyscall, so that the scheduler knows that
// the thread is in a system call: a vCPU that stays in the guest for minutes blocks neither other
// goroutines nor the garbage collector. A pointer is converted in the call expression itself, as
// package unsafe requires: only there the compiler keeps the object alive and in place.

// call makes an ioctl with an integer argument.
func (d descriptor) call(req request, arg uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), req.number, arg)
		if !again(req, errno) {
			return d.result(req, r, errno)
		}
	}
}

// pass makes an ioctl with a pointer to a structure of the size encoded in req, or to the first byte of
// a structure with a tail of variable length.
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

// again is true for a call that a signal of the Go runtime has interrupted. For KVM_RUN an interruption
// is a valid result.
func again(req request, errno unix.Errno) bool { return errno == unix.EINTR && req != ioRun }

func (d descriptor) result(req request, r uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return 0, fmt.Errorf("%s%s: %w", req.name, d.of, errno)
	}
	return int(r), nil
}

// Offsets into struct kvm_run.
const (
	runRequestWord = 0 // the word whose second byte is immediate_exit
	runExitReason  = 8
	runIO          = 32
	runMMIO        = 32
	runInternal    = 32
	runMemoryFault = 32
	runMinSize     = 2352
)

// runPage is a vCPU's struct kvm_run. Apart from the request word it is written by the kernel
// during KVM_RUN and read by the vCPU's thread after it, so plain loads are enough.
type runPage struct{ b []byte }

// requestExit sets or clears immediate_exit. It is a byte, and sync/atomic has no bytes: the word
// around it holds request_interrupt_window, which this VMM never sets, and padding.
func (p runPage) requestExit(on bool) {
	word := (*uint32)(unsafe.Pointer(&p.b[runRequestWord]))
	v := uint32(0)
	if on {
		v = 1 << 8
	}
	atomic.StoreUint32(word, v)
}

func (p runPage) u32(off int) uint32 { return binary.LittleEndian.Uint32(p.b[off:]) }
func (p runPage) u64(off int) uint64 { return binary.LittleEndian.Uint64(p.b[off:]) }
