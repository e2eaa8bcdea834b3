package vmm

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processVMReadv copies from a mapping of this process into local, in the kernel. It stops at the
// first page that cannot be had: a short count, or EFAULT if it is the very first.
func processVMReadv(local, mapping []byte) (int, error) {
	l, r := vectors(local, mapping)
	return unix.ProcessVMReadv(os.Getpid(), l, r, 0)
}

// processVMWritev is the other direction.
func processVMWritev(local, mapping []byte) (int, error) {
	l, r := vectors(local, mapping)
	return unix.ProcessVMWritev(os.Getpid(), l, r, 0)
}

func vectors(local, mapping []byte) ([]unix.Iovec, []unix.RemoteIovec) {
	l := []unix.Iovec{{Base: unsafe.SliceData(local)}}
	l[0].SetLen(len(local))
	return l, []unix.RemoteIovec{{Base: address(mapping), Len: len(mapping)}}
}

// address is where a mapping begins. The memory is not Go's, so the number stays right.
func address(mapping []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mapping))) }
