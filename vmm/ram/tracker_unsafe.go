package ram

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/userfaultfd.h and linux/fs.h; the ioctl numbers are the same on amd64 and arm64.
const (
	uffdAPI                  = 0xaa
	uffdUserModeOnly         = 1
	uffdFeatureThreadID      = 1 << 8
	uffdFeatureWPUnpopulated = 1 << 13
	uffdFeatureWPAsync       = 1 << 15
	uffdRegisterModeMissing  = 1 << 0
	uffdRegisterModeWP       = 1 << 1
	uffdWriteProtectModeWP   = 1 << 0
	uffdEventPagefault       = 0x12
	uffdMessageSize          = 32

	ioUffdAPI          = 0xc018aa3f
	ioUffdRegister     = 0xc020aa00
	ioUffdWake         = 0x8010aa02
	ioUffdCopy         = 0xc028aa03
	ioUffdWriteProtect = 0xc018aa06
	ioPagemapScan      = 0xc0606610
)

// Categories of a page in PAGEMAP_SCAN.
const (
	pageIsWritten = 1 << 1
	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
)

// uffdioAPI mirrors struct uffdio_api.
type uffdioAPI struct{ API, Features, Ioctls uint64 }

// uffdioRegister mirrors struct uffdio_register.
type uffdioRegister struct{ Start, Len, Mode, Ioctls uint64 }

// uffdioRange mirrors struct uffdio_range.
type uffdioRange struct{ Start, Len uint64 }

// uffdioCopy mirrors struct uffdio_copy.
type uffdioCopy struct {
	Dst, Src, Len, Mode uint64
	Copied              int64
}

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

// ioctl passes a pointer to a structure whose size is encoded in req.
func ioctl[T any](fd int, req uintptr, arg *T) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(arg)))
		if errno != unix.EAGAIN && errno != unix.EINTR {
			return int(r), asError(errno)
		}
	}
}

func uffdHandshake(fd int, features uint64) error {
	_, err := ioctl(fd, ioUffdAPI, &uffdioAPI{API: uffdAPI, Features: features})
	return err
}

func uffdRegister(fd int, m mapping, mode uint64) error {
	_, err := ioctl(fd, ioUffdRegister, &uffdioRegister{Start: uint64(m.addr), Len: m.size, Mode: mode})
	return err
}

func uffdProtect(fd int, m mapping) error {
	_, err := ioctl(fd, ioUffdWriteProtect, &uffdioWriteProtect{Start: uint64(m.addr), Len: m.size,
		Mode: uffdWriteProtectModeWP})
	return err
}

// uffdFault returns the address of a page fault and the ID of its thread; ok is false for a message of
// another kind.
func uffdFault(message []byte) (addr uintptr, thread int, ok bool) {
	if message[0] != uffdEventPagefault {
		return 0, 0, false
	}
	le := binary.LittleEndian
	return uintptr(le.Uint64(message[16:])), int(le.Uint32(message[24:])), true
}

// uffdCopy copies in a missing page and wakes the threads that wait for it.
func uffdCopy(fd int, m mapping, page []byte) error {
	var pin runtime.Pinner
	pin.Pin(unsafe.SliceData(page))
	defer pin.Unpin()
	_, err := ioctl(fd, ioUffdCopy, &uffdioCopy{Dst: uint64(m.addr), Len: m.size,
		Src: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(page))))})
	return err
}

// uffdWake wakes the threads that wait for pages of a mapping. They try again.
func uffdWake(fd int, m mapping) error {
	_, err := ioctl(fd, ioUffdWake, &uffdioRange{Start: uint64(m.addr), Len: m.size})
	return err
}

// pagemapScan fills out with ranges of pages that have any of the given categories, with their
// categories. n ranges are filled in; next is the address to continue from.
func pagemapScan(fd int, start, end uintptr, anyOf uint64, out []pageRegion) (
	n int, next uintptr, err error) {
	// The argument contains the address as an integer, which the garbage collector does not follow.
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
	n, err = ioctl(fd, ioPagemapScan, &arg)
	return n, uintptr(arg.WalkEnd), err
}
