package trace

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Tracer records the first touches of vCPUs, beginning with [New]. It must be used by one goroutine only.
type Tracer struct {
	rings []*ring
	lost  uint64
}

// Probe tests whether [New] can work on this host. The error says what is missing and matches
// [ErrUnavailable].
func Probe() error {
	t, err := New([]int{0})
	if err != nil {
		return err
	}
	return t.Close()
}

// New begins to trace; tids are the thread IDs of vCPU 0, 1, ... (0: the calling thread).
func New(tids []int) (*Tracer, error) {
	f, err := readFormat()
	if err != nil {
		return nil, err
	}
	t := &Tracer{}
	for vcpu, tid := range tids {
		r, err := openRing(f, tid, vcpu)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.rings = append(t.rings, r)
	}
	return t, nil
}

// drainTime is the interval at which rings are drained that do not fill up.
const drainTime = 20 * time.Millisecond

// Run calls f for every event until the context ends, including all events before that. The events of
// one vCPU are in order.
func (t *Tracer) Run(ctx context.Context, f func(Event)) error {
	poll := make([]unix.PollFd, len(t.rings))
	for i, r := range t.rings {
		poll[i] = unix.PollFd{Fd: int32(r.fd), Events: unix.POLLIN}
	}
	for ctx.Err() == nil {
		_, err := unix.Poll(poll, int(drainTime/time.Millisecond))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for the tracepoint: %w", err)
		}
		for i := range poll {
			if poll[i].Revents&unix.POLLHUP != 0 { // its thread has ended, and poll would not wait any more
				poll[i].Fd = -1
			}
		}
		if err := t.drain(f); err != nil {
			return err
		}
	}
	for _, r := range t.rings {
		if err := r.stop(); err != nil {
			return err
		}
	}
	return t.drain(f)
}

func (t *Tracer) drain(f func(Event)) error {
	for _, r := range t.rings {
		lost, err := r.drain(f)
		t.lost += lost
		if err != nil {
			return err
		}
	}
	return nil
}

// Lost returns the number of events that the kernel had no room for.
func (t *Tracer) Lost() uint64 { return t.lost }

// Close ends the trace.
func (t *Tracer) Close() error {
	var errs []error
	for _, r := range t.rings {
		errs = append(errs, r.close())
	}
	t.rings = nil
	return errors.Join(errs...)
}
