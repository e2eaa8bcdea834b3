package trace

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is the perf event of one vCPU's thread.
type ring struct {
	fd     int
	vcpu   int
	format format
	mem    []byte // a control page, then the ring
	buf    []byte // a record that wraps around the end of the ring
}

// ringPages is the size of a ring in pages, a power of two: 4 MiB have room for about 70,000 first
// touches, more than a guest makes while a Tracer is not scheduled.
const ringPages = 1024

// openRing attaches a ring to a thread. Recording begins at once.
func openRing(f format, tid, vcpu int) (*ring, error) {
	attr := unix.PerfEventAttr{
		Type:        unix.PERF_TYPE_TRACEPOINT,
		Size:        uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Config:      f.id,
		Sample:      1, // a record for each event
		Sample_type: unix.PERF_SAMPLE_TIME | unix.PERF_SAMPLE_RAW,
		Bits:        unix.PerfBitUseClockID | unix.PerfBitWatermark,
		Wakeup:      ringPages * 4096 / 4, // bytes
		Clockid:     unix.CLOCK_MONOTONIC,
	}
	fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%w: perf_event_open for vCPU %d: %w", ErrUnavailable, vcpu, err)
	}
	mem, err := unix.Mmap(fd, 0, (1+ringPages)*4096, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: map the perf ring of vCPU %d: %w", ErrUnavailable, vcpu, err)
	}
	return &ring{fd: fd, vcpu: vcpu, format: f, mem: mem}, nil
}

// drain calls f for each event since the last drain.
func (r *ring) drain(f func(Event)) (lost uint64, err error) {
	page := (*unix.PerfEventMmapPage)(unsafe.Pointer(unsafe.SliceData(r.mem)))
	// The records are read after the atomic load of the head. The atomic store of the tail then returns
	// their room to the kernel (perf_event_open(2), data_head).
	head := atomic.LoadUint64(&page.Data_head)
	tail := page.Data_tail // only written here
	lost, err = r.records(r.mem[4096:], tail, head, f)
	atomic.StoreUint64(&page.Data_tail, head)
	return lost, err
}

// stop stops the recording.
func (r *ring) stop() error {
	if err := unix.IoctlSetInt(r.fd, unix.PERF_EVENT_IOC_DISABLE, 0); err != nil {
		return fmt.Errorf("stop tracing vCPU %d: %w", r.vcpu, err)
	}
	return nil
}

func (r *ring) close() error {
	err := unix.Munmap(r.mem)
	if e := unix.Close(r.fd); err == nil {
		err = e
	}
	return err
}
