package verify

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// copyOut copies bytes of a mapping into buf by process_vm_readv on this process. Only the address
// of the mapping is taken here; the kernel reads it, and what cannot be read is EFAULT.
func copyOut(mem, buf []byte) error {
	for len(buf) > 0 {
		local := []unix.Iovec{{Base: &buf[0]}}
		local[0].SetLen(len(buf))
		remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&mem[0])), Len: len(buf)}}
		n, err := unix.ProcessVMReadv(os.Getpid(), local, remote, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.EFAULT
		}
		mem, buf = mem[n:], buf[n:]
	}
	return nil
}
