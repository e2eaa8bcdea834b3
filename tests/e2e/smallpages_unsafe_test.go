package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// QEMU gives its RAM MADV_HUGEPAGE, and the kernel then reads 2 MiB around a fault, whatever
// read-ahead the mount has: what is read says little of what the guest touches. A program that
// smallPages starts has that advice refused, and faults page by page.

// smallPagesEnv makes a process of the test binary that starter: the program to start.
const smallPagesEnv = "THAW_E2E_SMALL_PAGES"

// smallPages gives a program that is another one without MADV_HUGEPAGE.
func smallPages(t *testing.T, program string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "smallpages")
	text := fmt.Sprintf("#!/bin/sh\n%s='%s' exec '%s' \"$@\"\n", smallPagesEnv, program, self)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// smallPagesMainIfChild becomes the program, in a process that was started for it.
func smallPagesMainIfChild() {
	program, ok := os.LookupEnv(smallPagesEnv)
	if !ok {
		return
	}
	runtime.LockOSThread() // the filter is the thread's, and the program takes that thread's place
	err := errors.Join(os.Unsetenv(smallPagesEnv), refuseHugePages())
	if err == nil {
		err = syscall.Exec(program, append([]string{program}, os.Args[1:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, "start", program, "without huge pages:", err)
	os.Exit(1)
}

// refuseHugePages has the kernel answer EINVAL to madvise(MADV_HUGEPAGE) from now on.
func refuseHugePages() error {
	const nr, advice = 0, 16 + 2*8 // offsets in struct seccomp_data: of the number, of argument 2
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: nr},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_MADVISE},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: advice},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.MADV_HUGEPAGE},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER,
		uintptr(unsafe.Pointer(&prog)), 0, 0)
}
