package vmm

import (
	"encoding/binary"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/userfaultfd.h and linux/fs.h; the ioctl numbers are the same on amd64 and arm64.
const (
	uffdAPI                  = 0xaa
	uffdUserModeOnly         = 1
	uffdFeatureWPUnpopulated = 1 << 13
	uffdFeatureWPAsync       = 1 << 15
	uffdRegisterModeWP       = 1 << 1
	uffdWriteProtectModeWP   = 1 << 0

	ioUffdAPI          = 0xc018aa3f
	ioUffdRegister     = 0xc020aa00
	ioUffdWriteProtect = 0xc018aa06
	ioPagemapScan      = 0xc0606610
)

// uffdioAPI mirrors struct uffdio_api.
type uffdioAPI struct{ API, Features, Ioctls uint64 }

// uffdioRegister mirrors struct uffdio_register.
type uffdioRegister struct{ Start, Len, Mode, Ioctls uint64 }

// uffdioWriteProtect mirrors struct uffdio_writeprotect.
type uffdioWriteProtect struct{ Start, Len, Mode uint64 }

// pageRegion mirrors struct page_region.
type pageRegion struct{ Start, End, Categories uint64 }

// pmScanArg mirrors struct pm_scan_arg.
type pmScanArg struct {
	Size, Flags, Start, End, WalkEnd, Vec, VecLen, MaxPages       uint64
	CategoryInverted, CategoryMask, CategoryAnyofMask, ReturnMask uint64
}

func userfaultfd(flags int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, uintptr(flags), 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

func uffdHandshake(fd int, features uint64) error {
	arg := uffdioAPI{API: uffdAPI, Features: features}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioUffdAPI, uintptr(unsafe.Pointer(&arg)))
	return asError(errno)
}

func uffdRegisterWP(fd int, m mapping) error {
	arg := uffdioRegister{Start: uint64(m.addr), Len: m.size, Mode: uffdRegisterModeWP}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioUffdRegister,
		uintptr(unsafe.Pointer(&arg)))
	return asError(errno)
}

func uffdProtect(fd int, m mapping) error {
	arg := uffdioWriteProtect{Start: uint64(m.addr), Len: m.size, Mode: uffdWriteProtectModeWP}
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioUffdWriteProtect,
			uintptr(unsafe.Pointer(&arg)))
		if errno == unix.EAGAIN || errno == unix.EINTR {
			continue
		}
		return asError(errno)
	}
}

// pagemapScan lists ranges of pages that have any of the categories, with the categories in which
// they differ. next is where to go on; n ranges are filled in.
func pagemapScan(fd int, start, end uintptr, anyOf uint64, out []pageRegion) (
	n int, next uintptr, err error) {
	// The argument holds an address, which the collector does not follow.
	var pin runtime.Pinner
	pin.Pin(unsafe.SliceData(out))
	defer pin.Unpin()
	arg := pmScanArg{
		Start: uint64(start), End: uint64(end),
		Vec: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(out)))), VecLen: uint64(len(out)),
		CategoryAnyofMask: anyOf,
		ReturnMask:        pageIsPresent | pageIsSwapped | pageIsWritten | pageIsFile,
	}
	arg.Size = uint64(unsafe.Sizeof(arg))
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioPagemapScan,
		uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return 0, 0, errno
	}
	return int(r), uintptr(arg.WalkEnd), nil
}

func readWords(f *os.File, words []uint64, off int64) error {
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
	if _, err := f.ReadAt(b, off); err != nil {
		return err
	}
	for i := range words {
		words[i] = binary.NativeEndian.Uint64(b[i*8:])
	}
	return nil
}
