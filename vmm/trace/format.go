package trace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"
)

// format has the needed parts of a tracepoint's `format` file: its number, and the offsets of its
// fields in a raw record.
type format struct {
	id    uint64
	gfn   field
	level field
}

// field is an unsigned integer in a raw record, little-endian.
type field struct{ offset, size int }

// Lines of a format file, such as "ID: 118" and "field:u64 gfn;	offset:8;	size:8;	signed:0;".
var (
	idLine    = regexp.MustCompile(`(?m)^ID:\s*(\d+)\s*$`)
	fieldLine = regexp.MustCompile(`(?m)^\s*field:[^;\n]*\b(\w+);\s*offset:(\d+);\s*size:([1248]);`)
)

// parseFormat reads a format file (Documentation/trace/events.rst, "Event formats").
func parseFormat(text string) (format, error) {
	var f format
	var err error
	if m := idLine.FindStringSubmatch(text); m != nil {
		f.id, err = strconv.ParseUint(m[1], 10, 32)
	}
	if err != nil || f.id == 0 {
		return f, fmt.Errorf("the format of the tracepoint has no number")
	}
	fields := map[string]*field{"gfn": &f.gfn, "level": &f.level}
	for _, m := range fieldLine.FindAllStringSubmatch(text, -1) {
		offset, err := strconv.ParseUint(m[2], 10, 12) // no record is longer than 4096 bytes
		if at := fields[m[1]]; at != nil && err == nil {
			*at = field{int(offset), int(m[3][0] - '0')}
		}
	}
	for name, at := range fields {
		if at.size == 0 {
			return f, fmt.Errorf("the format of the tracepoint has no integer field %q", name)
		}
	}
	return f, nil
}

// get reads the field. ok is false if the record is too short.
func (f field) get(raw []byte) (v uint64, ok bool) {
	if f.offset+f.size > len(raw) {
		return 0, false
	}
	for i := range f.size {
		v |= uint64(raw[f.offset+i]) << (8 * i)
	}
	return v, true
}

// formatFile is the path of the tracepoint's format in tracefs.
const formatFile = "events/kvmmmu/kvm_mmu_spte_requested/format"

// places are the usual mount points of tracefs.
var places = [...]string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}

// ErrUnavailable matches errors that say that this host cannot trace first touches.
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

// readDetached reads a file of tracefs through a detached mount.
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
