package trace

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Event is the first touch of a page, or of a larger page table entry.
type Event struct {
	GFN   uint64        // frame number of the first page
	Count uint64        // number of pages: 1, or 512 for an entry of 2 MiB
	At    time.Duration // time of CLOCK_MONOTONIC
	VCPU  int
}

// records reads the records between tail and head of a ring, in the order of writing, and calls f for
// each sample. A record may wrap around the end of the ring. lost is the number of records that the
// kernel had no room for.
//
// The layout is that of perf_event_open(2), "MMAP layout", for PERF_SAMPLE_TIME|PERF_SAMPLE_RAW.
func (r *ring) records(data []byte, tail, head uint64, f func(Event)) (lost uint64, err error) {
	size := uint64(len(data))
	if head-tail > size {
		return 0, fmt.Errorf("perf ring: %d bytes cannot be in a ring of %d", head-tail, size)
	}
	for tail < head {
		rec := r.copyOut(data, tail, 8)
		kind, n := binary.LittleEndian.Uint32(rec), uint64(binary.LittleEndian.Uint16(rec[6:]))
		if n < 8 || n > head-tail {
			return lost, fmt.Errorf("perf ring: a record of %d bytes with %d left", n, head-tail)
		}
		rec = r.copyOut(data, tail, n)
		tail += n
		switch kind {
		case unix.PERF_RECORD_SAMPLE:
			if err := r.sample(rec[8:], f); err != nil {
				return lost, err
			}
		case unix.PERF_RECORD_LOST:
			if len(rec) < 24 {
				return lost, fmt.Errorf("perf ring: a record of lost events is too short")
			}
			lost += binary.LittleEndian.Uint64(rec[16:])
		}
	}
	return lost, nil
}

// sample decodes a sample: u64 time, u32 size, then the raw record.
func (r *ring) sample(b []byte, f func(Event)) error {
	if len(b) < 12 {
		return fmt.Errorf("perf ring: a sample of %d bytes is too short", len(b))
	}
	n := binary.LittleEndian.Uint32(b[8:])
	if uint64(n) > uint64(len(b)-12) {
		return fmt.Errorf("perf ring: a raw record of %d bytes in a sample of %d", n, len(b))
	}
	raw := b[12 : 12+n]
	gfn, ok1 := r.format.gfn.get(raw)
	level, ok2 := r.format.level.get(raw)
	if !ok1 || !ok2 || level < 1 || level > 3 {
		return fmt.Errorf("perf ring: a raw record of %d bytes, level %d", n, level)
	}
	count := uint64(1) << (9 * (level - 1))
	f(Event{GFN: gfn &^ (count - 1), Count: count, VCPU: r.vcpu,
		At: time.Duration(binary.LittleEndian.Uint64(b))})
	return nil
}

// copyOut returns n bytes from the position at; they are valid until the next call.
func (r *ring) copyOut(data []byte, at, n uint64) []byte {
	at %= uint64(len(data))
	if at+n <= uint64(len(data)) {
		return data[at : at+n]
	}
	r.buf = append(append(r.buf[:0], data[at:]...), data[:n-(uint64(len(data))-at)]...)
	return r.buf
}
