package ram

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is guest memory in the address space of this process: an address and a length in bytes. It is
// not a slice, so that no Go code can touch the memory (doc.go says why). Only the kernel does, for
// system calls and for the guest.
type mapping struct {
	addr uintptr
	size uint64
}

// part is a piece of the mapping.
func (m mapping) part(off, n uint64) mapping { return mapping{m.addr + uintptr(off), n} }

// Flags of mapFile. NORESERVE: the guest could change all of its pages, but hardly ever does.
const (
	mapShared  = unix.MAP_SHARED
	mapPrivate = unix.MAP_PRIVATE | unix.MAP_NORESERVE
)

// mapFile maps the first size bytes of a file, at any address.
func mapFile(f *os.File, size uint64, flags int) (mapping, error) {
	addr, err := mmap(0, size, flags, f.Fd(), 0)
	if err != nil {
		return mapping{}, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return mapping{addr, size}, nil
}

// replace maps a part of a file over this part of a mapping. Pages of a shared mapping stay in their
// file, private copies are lost. Users of the addresses (KVM's memory slots) see the new pages from
// then on.
func (m mapping) replace(f *os.File, off uint64, flags int) error {
	if _, err := mmap(m.addr, m.size, flags|unix.MAP_FIXED, f.Fd(), off); err != nil {
		return fmt.Errorf("map %s: %w", f.Name(), err)
	}
	return nil
}

// empty replaces the mapping by zeroed anonymous memory.
func (m mapping) empty() error {
	_, err := mmap(m.addr, m.size, mapPrivate|unix.MAP_ANONYMOUS|unix.MAP_FIXED, ^uintptr(0), 0)
	return err
}

func mmap(addr uintptr, size uint64, flags int, fd uintptr, off uint64) (uintptr, error) {
	r, _, errno := unix.Syscall6(unix.SYS_MMAP, addr, uintptr(size),
		unix.PROT_READ|unix.PROT_WRITE, uintptr(flags), fd, uintptr(off))
	return r, asError(errno)
}

// protect makes memory inaccessible.
func (m mapping) protect() error { return m.call(unix.SYS_MPROTECT, unix.PROT_NONE) }

func (m mapping) unmap() error { return m.call(unix.SYS_MUNMAP, 0) }

func (m mapping) advise(advice int) error { return m.call(unix.SYS_MADVISE, uintptr(advice)) }

func (m mapping) call(trap, arg uintptr) error {
	_, _, errno := unix.Syscall(trap, m.addr, uintptr(m.size), arg)
	return asError(errno)
}

// read copies from the mapping into local, by a system call. It stops at the first page that cannot be
// read: the count is short, or, for the very first page, the error is EFAULT.
func (m mapping) read(local []byte) (int, error) {
	l, r := vectors(local, m)
	return unix.ProcessVMReadv(os.Getpid(), l, r, 0)
}

// write copies from local into the mapping.
func (m mapping) write(local []byte) (int, error) {
	l, r := vectors(local, m)
	return unix.ProcessVMWritev(os.Getpid(), l, r, 0)
}

func vectors(local []byte, m mapping) ([]unix.Iovec, []unix.RemoteIovec) {
	l := []unix.Iovec{{Base: unsafe.SliceData(local)}}
	l[0].SetLen(len(local))
	return l, []unix.RemoteIovec{{Base: m.addr, Len: int(m.size)}}
}

// mincore sets bit 0 of a byte of vec for each page of a mapped file that is in the page cache.
func (m mapping) mincore(vec []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, m.addr, uintptr(m.size),
		uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	return asError(errno)
}

func asError(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
