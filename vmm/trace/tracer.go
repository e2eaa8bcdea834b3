package trace

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Tracer traces the first touches of some vCPUs, from [New] on. It is used by one goroutine.
type Tracer struct {
	rings []*ring
	lost  uint64
}

// Probe says whether [New] can be expected to work here; the error tells what is lacking and
// matches [ErrUnavailable].
func Probe() error {
	t, err := New([]int{0})
	if err != nil {
		return err
	}
	return t.Close()
}

// New begins to trace; tids are the threads of vCPU 0, 1, ... (0: the calling thread).
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

// drainTime is how often the rings are emptied when they do not fill up.
const drainTime = 20 * time.Millisecond

// Run gives every event to f until the context ends, those of one vCPU in the order in which they
// happened. What came before the end of the context is seen.
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
			if poll[i].Revents&unix.POLLHUP != 0 { // its thread has ended: poll would not wait
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

// Lost is the number of events that the kernel had no room for.
func (t *Tracer) Lost() uint64 { return t.lost }

// Close ends the tracing.
func (t *Tracer) Close() error {
	var errs []error
	for _, r := range t.rings {
		errs = append(errs, r.close())
	}
	t.rings = nil
	return errors.Join(errs...)
}
