package kvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// Stats reads KVM's counters of a vCPU: exits, halts, the time halted (halt_wait_ns). They have their
// own file descriptor and can be read at any time, by any goroutine, without stopping the vCPU.
type Stats struct {
	f    *os.File
	desc []statsDesc
	size int   // bytes of the data
	at   int64 // offset of the data in the file
}

type statsDesc struct {
	name   string
	offset int // bytes into the data, of a u64
}

// Sizes of struct kvm_stats_header and, without its name, of struct kvm_stats_desc.
const (
	statsHeaderSize = 24
	statsDescSize   = 16
	maxStats        = 1 << 12 // counters; the kernel has about a hundred
	maxStatsName    = 1 << 10
)

// Stats opens the counters of a vCPU. The error is [ErrNoStats] if this kernel has none. Like every
// ioctl of a vCPU, it waits while the vCPU is in KVM_RUN, perhaps for ever; [Stats.Read] does not.
func (c *VCPU) Stats() (*Stats, error) {
	n, err := c.call(ioGetStatsFD, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoStats, err)
	}
	s := &Stats{f: os.NewFile(uintptr(n), "KVM counters")}
	if err := s.describe(); err != nil {
		s.f.Close()
		return nil, fmt.Errorf("KVM counters: %w", err)
	}
	return s, nil
}

// ErrNoStats says that the kernel (before Linux 5.14) has no counters that can be read this way.
var ErrNoStats = errors.New("KVM has no readable counters")

// describe reads the names and offsets of the counters, which never change.
func (s *Stats) describe() error {
	head := make([]byte, statsHeaderSize)
	if _, err := s.f.ReadAt(head, 0); err != nil {
		return err
	}
	nameSize, count := int(getU32(head[4:])), int(getU32(head[8:]))
	if nameSize > maxStatsName || count > maxStats {
		return fmt.Errorf("%d counters with names of %d bytes are too many", count, nameSize)
	}
	table := make([]byte, count*(statsDescSize+nameSize))
	if _, err := s.f.ReadAt(table, int64(getU32(head[16:]))); err != nil {
		return err
	}
	end := 0
	for ; len(table) > 0; table = table[statsDescSize+nameSize:] {
		name, _, _ := bytes.Cut(table[statsDescSize:statsDescSize+nameSize], []byte{0})
		size, offset := int(binary.LittleEndian.Uint16(table[6:])), int(getU32(table[8:]))
		s.desc = append(s.desc, statsDesc{string(name), offset})
		end = max(end, offset+8*size)
	}
	if end > 8*1<<16*maxStats {
		return fmt.Errorf("%d bytes of data are too many", end)
	}
	s.size, s.at = end, int64(getU32(head[20:]))
	return nil
}

// Read reads all counters. Of a histogram only the first bucket is returned.
func (s *Stats) Read() (map[string]uint64, error) {
	data := make([]byte, s.size)
	if _, err := s.f.ReadAt(data, s.at); err != nil {
		return nil, fmt.Errorf("KVM counters: %w", err)
	}
	all := make(map[string]uint64, len(s.desc))
	for _, d := range s.desc {
		all[d.name] = binary.LittleEndian.Uint64(data[d.offset:])
	}
	return all, nil
}

// Close closes the descriptor.
func (s *Stats) Close() error { return s.f.Close() }
