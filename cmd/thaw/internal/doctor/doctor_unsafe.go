package doctor

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of linux/userfaultfd.h and linux/fs.h, the same on amd64 and arm64.
const (
	ioUffdAPI     = 0xc018aa3f
	ioPagemapScan = 0xc0606610
)

func addressOf(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func ioctl(fd int, request uintptr, arg unsafe.Pointer) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func userfaultfd(flags int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}

// uffdOffers asks for no feature, and is told which there are.
func uffdOffers(fd int) (uint64, error) {
	arg := struct{ api, features, ioctls uint64 }{api: 0xaa} // struct uffdio_api
	_, err := ioctl(fd, ioUffdAPI, unsafe.Pointer(&arg))
	return arg.features, err
}

// scanOwnPage asks PAGEMAP_SCAN for a page that is there.
func scanOwnPage(pagemap int) error {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(page)
	page[0] = 1
	const isPresent = 1 << 3
	region := new([3]uint64) // struct page_region
	var pin runtime.Pinner   // the argument holds its address
	pin.Pin(region)
	defer pin.Unpin()
	arg := struct { // struct pm_scan_arg
		size, flags, start, end, walkEnd, vec, vecLen, maxPages       uint64
		categoryInverted, categoryMask, categoryAnyOfMask, returnMask uint64
	}{
		start: addressOf(page), end: addressOf(page) + uint64(len(page)),
		vec: uint64(uintptr(unsafe.Pointer(region))), vecLen: 1,
		categoryMask: isPresent, returnMask: isPresent,
	}
	arg.size = uint64(unsafe.Sizeof(arg))
	n, err := ioctl(pagemap, ioPagemapScan, unsafe.Pointer(&arg))
	if err == nil && (n != 1 || region[0] != arg.start || region[1] != arg.end) {
		return errors.New("it does not find a page that is there")
	}
	return err
}
