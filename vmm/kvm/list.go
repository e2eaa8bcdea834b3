package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// maxList bounds the growth of a list that the kernel calls too short. KVM_MAX_CPUID_ENTRIES and
// KVM_MAX_MSR_ENTRIES are 256; the index list is somewhat longer on some hosts.
const maxList = 4096

const (
	cpuidHeader = 8 // nent, padding
	msrsHeader  = 8 // nmsrs, padding
	// MaxMSRs is the most registers that one KVM_GET_MSRS or KVM_SET_MSRS takes.
	MaxMSRs = 256
)

func putU32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
func getU32(b []byte) uint32    { return binary.LittleEndian.Uint32(b) }

// getCPUID reads a CPUID table. KVM_GET_CPUID2 may answer with empty entries at the end; they are
// dropped, for KVM_SET_CPUID2 would refuse or, worse, take them as leaf 0.
func getCPUID(fd int, req uintptr, name string) ([]CPUIDEntry, error) {
	const entry = 40
	for n := 128; ; n *= 2 {
		buf := make([]byte, cpuidHeader+entry*n)
		putU32(buf, uint32(n))
		_, err := ioctlBytes(fd, req, buf)
		if errors.Is(err, unix.E2BIG) && n < maxList {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list := make([]CPUIDEntry, getU32(buf))
		if _, err := binary.Decode(buf[cpuidHeader:], binary.LittleEndian, list); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for len(list) > 1 && list[len(list)-1] == (CPUIDEntry{}) {
			list = list[:len(list)-1]
		}
		return list, nil
	}
}

// MSRError says that the kernel stopped at one register. KVM_GET_MSRS and KVM_SET_MSRS report that
// only by a count that is too small, which is easily taken for success.
type MSRError struct {
	Op    string // "get" or "set"
	Index uint32
}

func (e *MSRError) Error() string {
	return fmt.Sprintf("KVM refused to %s model specific register %#x", e.Op, e.Index)
}

// msrs runs KVM_GET_MSRS or KVM_SET_MSRS in chunks of MaxMSRs and fills in what was read.
func msrs(fd int, req uintptr, op string, list []MSREntry) error {
	const entry = 16
	for len(list) > 0 {
		chunk := list[:min(len(list), MaxMSRs)]
		list = list[len(chunk):]
		buf := make([]byte, msrsHeader, msrsHeader+entry*len(chunk))
		putU32(buf, uint32(len(chunk)))
		buf, err := binary.Append(buf, binary.LittleEndian, chunk)
		if err != nil {
			return err
		}
		n, err := ioctlBytes(fd, req, buf)
		if err != nil {
			return fmt.Errorf("%s model specific registers: %w", op, err)
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

func encodeCPUID(list []CPUIDEntry) ([]byte, error) {
	buf := make([]byte, cpuidHeader)
	putU32(buf, uint32(len(list)))
	return binary.Append(buf, binary.LittleEndian, list)
}
