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

// Ways to trace first touches, as the record names them, the best first. The last is for kernels
// without asynchronous write-protection (before 6.7): with it, the first touch of a page costs the
// guest about four times as much.
const (
	wayEvents = "first touches by KVM's tracepoint, pages exact by write-protection"
	wayScans  = "first touches by scans of the page table, order as fine as their interval"
	wayFaults = "first touches by userfaultfd, each page served from the checkpoint"
)

// scanEvery is the interval of the page table scans without a tracepoint. The order of touches within
// one interval is not known.
const scanEvery = 10 * time.Millisecond

// recording is a trace of a machine's first touches. It begins while the machine is paused and no page
// is mapped: just after the remap from a checkpoint. Then each first touch is a fault that KVM
// resolves. Its tracepoint reports the fault, and the new entry in the VMM's own page table is seen by
// the tracker.
type recording struct {
	m       *Machine
	way     string
	why     string // why no better way is used
	touches *wss.Touches
	tracer  *trace.Tracer // of wayEvents
	begin   time.Duration // CLOCK_MONOTONIC
	kernel  time.Duration // in the kernel, up to begin
	paused  time.Duration // at the end
}

// record begins to trace, in the best way that this host has, but no better than the given one ("":
// any). The machine must be paused.
func (m *Machine) record(way string) (*recording, error) {
	r := &recording{m: m, way: wayEvents, touches: wss.NewTouches(m.mem.Size() / pageSize),
		kernel: m.kernelTime(), begin: monotonic()}
	if ok, why := m.mem.Exact(); !ok || way == wayFaults {
		r.way, r.why = wayFaults, cmp.Or(why, chosen)
		if err := m.mem.StartPager(r.fault(), m.end); err != nil {
			return nil, fmt.Errorf("this host does not show which pages were touched: %s; "+
				"and userfaultfd cannot serve pages one by one: %w", r.why, err)
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

// fault returns a function that records a touch reported by userfaultfd. The thread says which vCPU it
// was; touches by other threads, on behalf of a vCPU or a device, have no vCPU.
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

// run traces for the time d, or until the machine or the context ends.
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

// byEvents traces by the tracepoint. The scan at the end is exact: it also finds pages without an event.
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

// byFaults waits while the pager serves pages and records them, and then maps the files again.
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

// close releases the tracepoint.
func (r *recording) close() error {
	if r.tracer == nil {
		return nil
	}
	return r.tracer.Close()
}

// threads returns the thread IDs of the vCPUs.
func (m *Machine) threads() (tids []int) {
	for _, c := range m.vcpus {
		tids = append(tids, c.TID())
	}
	return tids
}

// monotonic reads the clock of the tracepoint's events.
func monotonic() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail
	return time.Duration(t.Nano())
}

// tickTime is the unit of times in /proc/PID/stat (USER_HZ).
const tickTime = 10 * time.Millisecond

// kernelTime returns the time that the vCPUs' threads have spent in the kernel; 0 if it cannot be read.
func (m *Machine) kernelTime() (sum time.Duration) {
	for _, tid := range m.threads() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
		if err != nil {
			return 0
		}
		// Field 15 is stime. Field 2 is a name in parentheses, which may contain anything.
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
