package vmm

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// memory is the guest's RAM: a file, mapped once as a whole, holes of the address space included.
//
// It has two lives. A machine that is started has its RAM in a memfd, mapped shared. A machine that
// is restored has the checkpoint's file mapped privately: what the guest reads comes from the page
// cache of that file, what it writes becomes its own and never reaches the file.
//
// Go code never touches the mapping: a page that is not there yet may take a while to come, or may
// never come. A goroutine that waits for a page in user mode holds up the garbage collector of the
// whole process, and a page that cannot be had kills the process by SIGBUS. So every access goes
// through the kernel (pread, process_vm_readv), where waiting is a system call and failure is
// EFAULT.
type memory struct {
	file    *os.File
	size    uint64 // bytes of the image, a multiple of pageSize
	private bool   // mapped MAP_PRIVATE from a checkpoint
	mapping []byte // never indexed; see above
}

// newMemory makes zeroed RAM.
func newMemory(size uint64) (*memory, error) {
	fd, err := unix.MemfdCreate("thaw-guest", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "guest memory")
	if err := f.Truncate(int64(size)); err != nil {
		f.Close()
		return nil, fmt.Errorf("guest memory of %d bytes: %w", size, err)
	}
	return mapMemory(f, size, false)
}

// openMemory maps the memory file of a checkpoint. On a mount of thaw the open is the request to
// restore: it returns once the working set is in the page cache.
func openMemory(path string, size uint64) (*memory, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || uint64(st.Size()) != size) {
		err = fmt.Errorf("%s: %s of %d bytes, the state describes %d bytes of memory", path,
			st.Mode().Type(), st.Size(), size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return mapMemory(f, size, true)
}

func mapMemory(f *os.File, size uint64, private bool) (*memory, error) {
	flags := unix.MAP_SHARED
	if private {
		// NORESERVE: the guest may change all of its pages, and nearly never does.
		flags = unix.MAP_PRIVATE | unix.MAP_NORESERVE
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	m := &memory{file: f, size: size, private: private, mapping: b}
	if private {
		// A fault is to fetch the page that the guest needs and no other. What else is worth
		// fetching is known to whoever serves the file, not to the kernel's read-ahead.
		// And page by page: a 2 MiB entry would be dropped whole when one of its pages is written.
		for _, advice := range []int{unix.MADV_RANDOM, unix.MADV_NOHUGEPAGE} {
			// EINVAL: a kernel without huge pages.
			if err := unix.Madvise(b, advice); err != nil && !errors.Is(err, unix.EINVAL) {
				m.Close()
				return nil, fmt.Errorf("madvise: %w", err)
			}
		}
	}
	return m, nil
}

// Close unmaps. No vCPU may be left.
func (m *memory) Close() error {
	return errors.Join(unix.Munmap(m.mapping), m.file.Close())
}

// WriteAt writes into RAM at a guest physical address.
func (m *memory) WriteAt(p []byte, gpa int64) (int, error) {
	if !m.private {
		return m.file.WriteAt(p, gpa)
	}
	return m.transfer(p, uint64(gpa), processVMWritev)
}

// ReadAt reads RAM at a guest physical address, as the guest sees it. A page that cannot be had is
// a *MemoryLostError.
func (m *memory) ReadAt(p []byte, gpa int64) (int, error) {
	if !m.private {
		return m.file.ReadAt(p, gpa)
	}
	return m.transfer(p, uint64(gpa), processVMReadv)
}

// transfer copies between p and the mapping by a system call.
func (m *memory) transfer(p []byte, gpa uint64, call func(local, mapping []byte) (int, error)) (
	int, error) {
	if gpa > m.size || uint64(len(p)) > m.size-gpa {
		return 0, io.ErrUnexpectedEOF
	}
	done := 0
	for done < len(p) {
		off := gpa + uint64(done)
		n, err := call(p[done:], m.mapping[off:off+uint64(len(p)-done)])
		if err == nil && n == 0 {
			err = unix.EFAULT
		}
		if errors.Is(err, unix.EFAULT) {
			// What could be copied has been; the page where the call stopped is the one.
			return done, &MemoryLostError{GFN: off / pageSize, Known: true,
				Sign: "a page could not be read by the VMM", Err: err}
		}
		if err != nil {
			return done, fmt.Errorf("guest memory at %#x: %w", off, err)
		}
		done += n
	}
	return done, nil
}
