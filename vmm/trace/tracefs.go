package trace

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// formatFile is the tracepoint's place in tracefs.
const formatFile = "events/kvmmmu/kvm_mmu_spte_requested/format"

// places are where tracefs is by custom.
var places = [...]string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}

// ErrUnavailable matches the errors of a host on which first touches cannot be traced.
var ErrUnavailable = errors.New("KVM's tracepoint cannot be used")

// readFormat finds the tracepoint's format.
func readFormat() (format, error) {
	var text []byte
	var err error
	for _, p := range places {
		if text, err = os.ReadFile(p + "/" + formatFile); err == nil {
			return parseFormat(string(text))
		}
	}
	if text, err2 := readDetached(formatFile); err2 == nil {
		return parseFormat(string(text))
	} else {
		err = errors.Join(err, err2)
	}
	return format{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// readDetached reads a file of tracefs through a mount of it that is attached nowhere.
func readDetached(name string) ([]byte, error) {
	fsfd, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("tracefs is not mounted, and fsopen: %w", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return nil, fmt.Errorf("tracefs is not mounted, and fsconfig: %w", err)
	}
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("tracefs is not mounted, and fsmount: %w", err)
	}
	defer unix.Close(mnt)
	fd, err := unix.Openat(mnt, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "tracefs/" + name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 1<<16))
}
