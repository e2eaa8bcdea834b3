package qemu

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// QEMU requests huge pages for its RAM (MADV_HUGEPAGE). For a mapped file Linux then reads 2 MiB and
// more around each fault, whatever readahead the file system has set. The guest's own reads can only be
// seen without that.

// refuseHugePages makes madvise(MADV_HUGEPAGE) fail on this thread and in its child processes, by a
// seccomp filter.
func refuseHugePages() error {
	const nr, advice = 0, 16 + 2*8 // offsets in struct seccomp_data; the low half of an argument
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	unless := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: skip}
	}
	give := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	filter := []unix.SockFilter{
		load(nr), unless(unix.SYS_MADVISE, 3),
		load(advice), unless(unix.MADV_HUGEPAGE, 1),
		give(unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)),
		give(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("qemu: no new privileges: %w", err)
	}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER,
		uintptr(unsafe.Pointer(&program)), 0, 0)
	if err != nil {
		return fmt.Errorf("qemu: seccomp filter: %w", err)
	}
	return nil
}
