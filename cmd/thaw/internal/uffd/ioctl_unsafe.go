package uffd

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/userfaultfd.h; the numbers are the same on amd64 and arm64.
const (
	featureFork   = 1 << 1
	featureRemap  = 1 << 2
	featureRemove = 1 << 3

	eventPagefault = 0x12
	eventFork      = 0x13
	eventRemap     = 0x14
	eventRemove    = 0x15
	eventUnmap     = 0x16

	// Flags of a page fault whose page is not missing.
	faultProtected = 1 << 1
	faultMinor     = 1 << 2

	messageSize = 32

	ioUnregister = 0x8010aa01
	ioWake       = 0x8010aa02
	ioCopy       = 0xc028aa03
	ioZeropage   = 0xc020aa04
)

// uffdioRange mirrors struct uffdio_range.
type uffdioRange struct{ Start, Len uint64 }

// uffdioCopy mirrors struct uffdio_copy.
type uffdioCopy struct {
	Dst, Src, Len, Mode uint64
	Copied              int64
}

// uffdioZeropage mirrors struct uffdio_zeropage.
type uffdioZeropage struct {
	Start, Len, Mode uint64
	Zeroed           int64
}

// ioctl passes a pointer to a structure whose size is encoded in req. An interrupted call is made again.
func ioctl[T any](fd int, req uintptr, arg *T) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// ioctlCopy installs pages. progress is how many bytes were installed, also with an error.
func ioctlCopy(fd int, dst uint64, src []byte) (progress int64, err error) {
	// The argument has the address as an integer, which the garbage collector does not follow.
	var pin runtime.Pinner
	pin.Pin(unsafe.SliceData(src))
	defer pin.Unpin()
	arg := uffdioCopy{Dst: dst, Len: uint64(len(src)),
		Src: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(src))))}
	err = ioctl(fd, ioCopy, &arg)
	return arg.Copied, err
}

// ioctlZeropage is ioctlCopy for zeros.
func ioctlZeropage(fd int, dst, n uint64) (progress int64, err error) {
	arg := uffdioZeropage{Start: dst, Len: n}
	err = ioctl(fd, ioZeropage, &arg)
	return arg.Zeroed, err
}

func ioctlWake(fd int, start, n uint64) error {
	return ioctl(fd, ioWake, &uffdioRange{Start: start, Len: n})
}

func ioctlUnregister(fd int, start, n uint64) error {
	return ioctl(fd, ioUnregister, &uffdioRange{Start: start, Len: n})
}
