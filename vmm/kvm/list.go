package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxList bounds the growth of a list that the kernel reports as too short. KVM_MAX_CPUID_ENTRIES and
// KVM_MAX_MSR_ENTRIES are 256; the index list is a little longer on some hosts.
const maxList = 4096

const (
	cpuidHeader = 8 // nent, padding
	msrsHeader  = 8 // nmsrs, padding
	// MaxMSRs is the most registers of one KVM_GET_MSRS or KVM_SET_MSRS.
	MaxMSRs = 256
)

func putU32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
func getU32(b []byte) uint32    { return binary.LittleEndian.Uint32(b) }

// readList reads a list of unknown length. Its header begins with a count: the room for entries before
// the call, and the number of entries after it.
func readList[T any](d descriptor, req request, header int) (list []T, err error) {
	size := binary.Size(*new(T))
	for n := 128; ; n *= 2 {
		buf := make([]byte, header+size*n)
		putU32(buf, uint32(n))
		_, err := pass(d, req, &buf[0])
		if errors.Is(err, unix.E2BIG) && n < maxList {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = make([]T, getU32(buf))
		_, err = binary.Decode(buf[header:], binary.LittleEndian, list)
		return list, err
	}
}

// cpuid reads a CPUID table. KVM_GET_CPUID2 may return empty entries at the end. They are dropped:
// KVM_SET_CPUID2 would refuse them or, worse, take them as leaf 0.
func cpuid(d descriptor, req request) ([]CPUIDEntry, error) {
	list, err := readList[CPUIDEntry](d, req, cpuidHeader)
	for len(list) > 1 && list[len(list)-1] == (CPUIDEntry{}) {
		list = list[:len(list)-1]
	}
	return list, err
}

// encodeList encodes a list as the argument of an ioctl, with the 8-byte header that most of them have.
func encodeList[T any](list []T) ([]byte, error) {
	buf := make([]byte, msrsHeader)
	putU32(buf, uint32(len(list)))
	return binary.Append(buf, binary.LittleEndian, list)
}

// MSRError says that KVM stopped at one register. KVM_GET_MSRS and KVM_SET_MSRS report that only by a
// smaller count, which is easily taken for success.
type MSRError struct {
	Op    string // "get" or "set"
	Index uint32
}

func (e *MSRError) Error() string {
	return fmt.Sprintf("KVM refused to %s model-specific register %#x", e.Op, e.Index)
}

// msrs runs KVM_GET_MSRS or KVM_SET_MSRS in chunks of MaxMSRs and fills in what was read.
func (d descriptor) msrs(req request, op string, list []MSREntry) error {
	for len(list) > 0 {
		chunk := list[:min(len(list), MaxMSRs)]
		list = list[len(chunk):]
		buf, err := encodeList(chunk)
		if err != nil {
			return err
		}
		n, err := pass(d, req, &buf[0])
		if err != nil {
			return err
		}
		if n < len(chunk) {
			return &MSRError{op, chunk[max(n, 0)].Index}
		}
		if _, err := binary.Decode(buf[msrsHeader:], binary.LittleEndian, chunk); err != nil {
			return err
		}
	}
	return nil
}
