package blob

import (
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A mapping keeps a file without a descriptor. It takes addresses, and memory only for what is read through
// it. It is never touched by the program itself, because a bad sector would end that by SIGBUS, and a
// collection would wait for the disk: the kernel copies from it.
type mapping []byte

func mapFile(f *os.File, size int64) (m mapping, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := conn.Control(func(fd uintptr) {
		m, err = unix.Mmap(int(fd), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	})
	if cerr != nil {
		return nil, cerr
	}
	return m, os.NewSyscallError("mmap", err)
}

func (m mapping) unmap() error { return os.NewSyscallError("munmap", unix.Munmap(m)) }

// readAt copies bytes of the file.
func (m mapping) readAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(m)) {
		return 0, io.EOF
	}
	done, want := 0, min(len(p), len(m)-int(off))
	for done < want {
		to := unix.Iovec{Base: &p[done]}
		to.SetLen(want - done)
		from := unix.RemoteIovec{
			Base: uintptr(unsafe.Pointer(&m[int(off)+done])), Len: want - done,
		}
		n, err := unix.ProcessVMReadv(os.Getpid(), []unix.Iovec{to}, []unix.RemoteIovec{from}, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return done, fmt.Errorf("read a removed file at %d: %w", off+int64(done),
				os.NewSyscallError("process_vm_readv", err))
		}
		done += n
	}
	if want < len(p) {
		return done, io.EOF
	}
	return done, nil
}
