package uffd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// userfault is what is done to the memory of a VM: by a descriptor, or by a model of one in tests.
// Lengths are in bytes. done is how many bytes of a call that failed were installed all the same, from
// the first on.
type userfault interface {
	copy(dst uint64, src []byte) (done int, err error)
	zero(dst, n uint64) (done int, err error)
	wake(dst, n uint64) error
}

// descriptor is a userfaultfd that a VM has handed over.
type descriptor int

func (d descriptor) copy(dst uint64, src []byte) (int, error) {
	progress, err := ioctlCopy(int(d), dst, src)
	return installed(len(src), progress, err), err
}

func (d descriptor) zero(dst, n uint64) (int, error) {
	progress, err := ioctlZeropage(int(d), dst, n)
	return installed(int(n), progress, err), err
}

// isChanging says whether a call failed because the memory of the VM is changing.
func isChanging(err error) bool { return errors.Is(err, unix.EAGAIN) }

func (d descriptor) wake(dst, n uint64) error { return ioctlWake(int(d), dst, n) }

// installed is how many of n bytes were installed by a call. After an error its progress is how many were,
// or 0, or the errno below 0: which of these depends on the kernel, and says nothing that the error does not.
func installed(n int, progress int64, err error) int {
	switch {
	case err == nil:
		return n
	case errors.Is(err, unix.EAGAIN) && progress > 0:
		return int(min(progress, int64(n)))
	}
	return 0
}

// isUserfaultfd says whether a descriptor is one.
func isUserfaultfd(fd int) bool {
	link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	return err == nil && link == "anon_inode:[userfaultfd]"
}

// featuresOf are those that the VMM has asked the kernel for.
func featuresOf(fd int) (uint64, error) {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		// API:	aa:FEATURES:IOCTLS
		fields := strings.Split(strings.TrimSpace(strings.TrimPrefix(line, "API:")), ":")
		if strings.HasPrefix(line, "API:") && len(fields) == 3 {
			return strconv.ParseUint(fields[1], 16, 64)
		}
	}
	return 0, fmt.Errorf("/proc/self/fdinfo/%d has no features of a userfaultfd", fd)
}

// message is a struct uffd_msg.
type message []byte

func (m message) event() byte { return m[0] }

// missing says whether a page fault is for a page that is missing, and not write-protected or only not
// mapped.
func (m message) missing() bool {
	return binary.LittleEndian.Uint64(m[8:])&(faultProtected|faultMinor) == 0
}

// address is that of a page fault.
func (m message) address() uint64 { return binary.LittleEndian.Uint64(m[16:]) }

// removed is the memory that was removed or unmapped.
func (m message) removed() (start, end uint64) {
	return binary.LittleEndian.Uint64(m[8:]), binary.LittleEndian.Uint64(m[16:])
}
