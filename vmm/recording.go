package vmm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/trace"
	"github.com/thawfs/thaw/wss"
)

// Ways in which first touches are traced, as the record names them, the best first. The last is for
// kernels without asynchronous write-protection (before 6.7): the first touch of a page costs the
// guest some four times as much.
const (
	wayEvents = "first touches by KVM's tracepoint, pages exact by write-protection"
	wayScans  = "first touches by scans of the page table, order as fine as their interval"
	wayFaults = "first touches by userfaultfd, each page served from the checkpoint"
)

// scanEvery is the interval of the scans where there is no tracepoint: what was touched within one
// has no order.
const scanEvery = 10 * time.Millisecond

// recording is a trace of a machine's first touches. It begins while the machine is paused and no
// page is mapped: just after its memory was mapped again from a checkpoint. Then each first touch is
// a fault that KVM resolves, which its tracepoint tells of, and leaves an entry in the VMM's own
// page table, which the tracker sees.
type recording struct {
	m       *Machine
	way     string
	why     string // none that is better
	touches *wss.Touches
	tracer  *trace.Tracer // of wayEvents
	begin   time.Duration // CLOCK_MONOTONIC
	kernel  time.Duration // in the kernel, up to begin
	paused  time.Duration // at the end
}

// record begins to trace, in the best way that this host has, or in one that is no better than the
// given one. The machine is paused.
func (m *Machine) record(way string) (*recording, error) {
	r := &recording{m: m, way: wayEvents, touches: wss.NewTouches(m.mem.Size() / pageSize),
		kernel: m.kernelTime(), begin: monotonic()}
	if ok, why := m.mem.Exact(); !ok || way == wayFaults {
		r.way, r.why = wayFaults, cmp.Or(why, chosen)
		if err := m.mem.StartPager(r.fault(), m.end); err != nil {
			return nil, fmt.Errorf("touched pages cannot be told from their neighbours: %s; "+
				"nor be served one by one: %w", r.why, err)
		}
		return r, nil
	}
	if way == wayScans {
		r.way, r.why = wayScans, chosen
		return r, nil
	}
	var err error
	if r.tracer, err = trace.New(m.threads()); err != nil {
		r.tracer, r.way, r.why = nil, wayScans, err.Error()
	}
	r.begin = monotonic()
	return r, nil
}

// chosen is why the way is not the best that this host has.
const chosen = "chosen by the caller"

// fault notes a touch that userfaultfd tells of. The thread of a vCPU is it; another one does what
// some vCPU or device wants.
func (r *recording) fault() func(gfn uint64, thread int) {
	vcpus := map[int]int{}
	for i, tid := range r.m.threads() {
		vcpus[tid] = i
	}
	return func(gfn uint64, thread int) {
		vcpu, ok := vcpus[thread]
		if !ok {
			vcpu = wss.NoVCPU
		}
		r.touches.Add(wss.Touch{GFN: gfn, Count: 1, At: monotonic() - r.begin, VCPU: vcpu})
	}
}

// run traces for so long, or until the machine or the context ends.
func (r *recording) run(ctx context.Context, d time.Duration) (set *wss.Set, s api.TraceStats,
	err error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.m.Wait(ctx)
		cancel()
	}()
	defer func() { <-ended }()
	switch r.way {
	case wayEvents:
		s.Way = r.way
		err = r.byEvents(ctx)
	case wayScans:
		s.Way = r.way + " of " + scanEvery.String() + " (" + r.why + ")"
		err = r.byScans(ctx)
	case wayFaults:
		s.Way = r.way + " (" + r.why + ")"
		err = r.byFaults(ctx)
	}
	cancel()
	if err != nil {
		return nil, s, fmt.Errorf("trace first touches: %w", err)
	}
	window := (monotonic() - r.begin).Truncate(time.Microsecond)
	s.Seconds, s.KernelSeconds = window.Seconds(), (r.m.kernelTime() - r.kernel).Seconds()
	s.Events, s.SilentPages = r.touches.Events(), r.touches.Silent()
	set, s.DroppedPages = r.touches.Set(s.Way, window, time.Now().UTC().Truncate(time.Second))
	s.Pages = set.Pages()
	if r.tracer != nil {
		s.LostEvents = r.tracer.Lost()
	}
	return set, s, nil
}

// byEvents lets the tracepoint tell. The scan at the end is exact: it finds what no event told of.
func (r *recording) byEvents(ctx context.Context) error {
	err := r.tracer.Run(ctx, func(e trace.Event) {
		r.touches.Add(wss.Touch{GFN: e.GFN, Count: e.Count, At: e.At - r.begin, VCPU: e.VCPU})
	})
	if err != nil {
		return err
	}
	return r.scan()
}

func (r *recording) byScans(ctx context.Context) error {
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return r.scan()
		case <-tick.C:
			if err := r.scan(); err != nil {
				return err
			}
		}
	}
}

// byFaults waits while pages are served, and gives the machine its memory back.
func (r *recording) byFaults(ctx context.Context) (err error) {
	<-ctx.Done()
	m := r.m
	m.control.Lock()
	defer m.control.Unlock()
	begin, running := monotonic(), m.is(phaseRunning)
	if running {
		if err := m.pause(); err != nil && !errors.Is(err, errEnded) {
			m.end(err)
		}
	}
	if err := m.mem.StopPager(); err != nil {
		m.end(err)
		return err
	}
	if running {
		r.paused = monotonic() - begin
		if err := m.resume(); err != nil && !errors.Is(err, errEnded) {
			return err
		}
	}
	return nil
}

func (r *recording) scan() error {
	touched, _, err := r.m.mem.Scan()
	if err != nil {
		return err
	}
	r.touches.Scanned(touched, monotonic()-r.begin)
	return nil
}

// close gives the tracepoint back.
func (r *recording) close() error {
	if r.tracer == nil {
		return nil
	}
	return r.tracer.Close()
}

// threads are those of the vCPUs.
func (m *Machine) threads() (tids []int) {
	for _, c := range m.vcpus {
		tids = append(tids, c.TID())
	}
	return tids
}

// monotonic is the clock of the tracepoint's events.
func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it cannot fail
	return time.Duration(t.Nano())
}

// tickTime is the unit of times in /proc/PID/stat (USER_HZ).
const tickTime = 10 * time.Millisecond

// kernelTime is how long the vCPUs' threads have been in the kernel; 0 where it does not tell.
func (m *Machine) kernelTime() (sum time.Duration) {
	for _, tid := range m.threads() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
		if err != nil {
			return 0
		}
		// Field 15, stime; the second one is a name in parentheses that may hold anything.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) < 13 {
			return 0
		}
		n, err := strconv.ParseInt(fields[12], 10, 64)
		if err != nil {
			return 0
		}
		sum += time.Duration(n) * tickTime
	}
	return sum
}
