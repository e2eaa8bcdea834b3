package perf

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of <linux/userfaultfd.h>, for amd64 and arm64 alike.
const (
	uffdAPI          = 0xaa
	uffdioAPI        = 0xc018aa3f
	uffdioRegister   = 0xc020aa00
	uffdioCopy       = 0xc028aa03
	uffdRegisterMiss = 1
)

type uffdioAPIArg struct{ api, features, ioctls uint64 }
type uffdioRegisterArg struct{ start, length, mode, ioctls uint64 }
type uffdioCopyArg struct {
	dst, src, length, mode uint64
	copied                 int64
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// alignedBuffer is memory that O_DIRECT may read into.
func alignedBuffer(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
}

// readDirect reads a file with O_DIRECT, sequentially, in pieces of 1 MiB.
func readDirect(path string, into []byte) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s with O_DIRECT: %w", path, err)
	}
	defer unix.Close(fd)
	for off := 0; off < len(into); {
		n, err := unix.Pread(fd, into[off:min(off+1<<20, len(into))], int64(off))
		if err != nil || n == 0 {
			return fmt.Errorf("read %s at %d: %d bytes, %w", path, off, n, err)
		}
		off += n
	}
	return nil
}

// reap restores the pages of a working set as REAP does: it reads the file that holds them with
// O_DIRECT and copies each to its place in a guest memory of memoryPages with UFFDIO_COPY. It
// gives the time of the read and of all.
func reap(path string, gfns []uint64, memoryPages uint64) (read, all time.Duration, err error) {
	const pageSize = 4096
	buf, err := alignedBuffer(len(gfns) * pageSize)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = unix.Munmap(buf) }()
	guest, err := unix.Mmap(-1, 0, int(memoryPages)*pageSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = unix.Munmap(guest) }()
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1 /* UFFD_USER_MODE_ONLY */, 0, 0)
	if errno != 0 {
		return 0, 0, fmt.Errorf("userfaultfd: %w", errno)
	}
	defer unix.Close(int(fd))
	api := uffdioAPIArg{api: uffdAPI}
	if err := ioctl(int(fd), uffdioAPI, unsafe.Pointer(&api)); err != nil {
		return 0, 0, fmt.Errorf("UFFDIO_API: %w", err)
	}
	start := time.Now()
	base := uint64(uintptr(unsafe.Pointer(&guest[0])))
	register := uffdioRegisterArg{start: base, length: uint64(len(guest)), mode: uffdRegisterMiss}
	if err := ioctl(int(fd), uffdioRegister, unsafe.Pointer(&register)); err != nil {
		return 0, 0, fmt.Errorf("UFFDIO_REGISTER: %w", err)
	}
	if err := readDirect(path, buf); err != nil {
		return 0, 0, err
	}
	read = time.Since(start)
	source := uint64(uintptr(unsafe.Pointer(&buf[0])))
	for i, gfn := range gfns {
		c := uffdioCopyArg{dst: base + gfn*pageSize, src: source + uint64(i)*pageSize, length: pageSize}
		if err := ioctl(int(fd), uffdioCopy, unsafe.Pointer(&c)); err != nil {
			return 0, 0, fmt.Errorf("UFFDIO_COPY of page %d: %w", gfn, err)
		}
	}
	return read, time.Since(start), nil
}

// touchHostMemory uses so many bytes of RAM once and gives them back.
func touchHostMemory(bytes int) error {
	mem, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	for i := 0; i < bytes; i += 4096 {
		mem[i] = 1
	}
	return unix.Munmap(mem)
}
