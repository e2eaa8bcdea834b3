package vmm

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/meter"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/vmm/vcpu"
)

// apiMachine implements [api.Machine] for a Machine.
type apiMachine struct {
	*Machine
	watcher *watcher
	stalls  *meter.StallSampler
}

var _ api.Machine = apiMachine{}

func (d apiMachine) Checkpoint(ctx context.Context, r api.CheckpointRequest) (api.CheckpointReply,
	error) {
	return d.checkpoint(ctx, r.Dir, checkpointOptions{Stop: r.Stop, Diff: r.Diff,
		NoRemap: r.NoRemap, Trace: seconds(r.TraceSeconds),
		Scan: scanOptions{Within: seconds(r.ScanSeconds), Budget: r.ScanBudget}})
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (d apiMachine) Kind(err error) api.ErrorKind {
	var parent *state.ParentError
	switch {
	case errors.Is(err, errEnded), errors.Is(err, vcpu.ErrRunning), errors.Is(err, fs.ErrExist),
		errors.Is(err, errNotRunning), errors.Is(err, errTracing), errors.Is(err, errNoParent),
		errors.As(err, &parent):
		return api.Conflict
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return api.NoSpace
	}
	return api.Failed
}

func (d apiMachine) Status() (api.Status, error) {
	s, err := d.Machine.status()
	if silent := d.watcher.silent(); silent > silentTime {
		s.ServerSilentSeconds = silent.Seconds()
	}
	return s, err
}

// status returns what the machine is doing.
func (m *Machine) status() (api.Status, error) {
	p := m.ports.snapshot()
	g := m.guestInfo(p)
	s := api.Status{MemoryBytes: m.mem.Size(), VCPUs: m.facts.VCPUs, Program: g.Program, Args: g.Args,
		Units: g.Units, Ready: g.Ready, Done: g.Done, DoneNow: m.ports.series.Progress("").Total}
	m.mu.Lock()
	s.State = string(m.phase)
	if m.err != nil {
		s.Error = m.err.Error()
	}
	if !m.first.IsZero() {
		s.Seconds = time.Since(m.first).Seconds()
	}
	m.mu.Unlock()
	if b := m.mem.Base(); b != nil {
		s.MappedFrom = b.Dir
		touched, dirty, err := m.mem.Scan()
		if err != nil {
			return s, err
		}
		t, d := touched.Count(), dirty.Count()
		s.TouchedPages, s.DirtyPages = &t, &d
	}
	return s, nil
}

func (d apiMachine) Metrics() (api.Metrics, error) {
	st, err := d.Machine.status()
	if err != nil {
		return api.Metrics{}, err
	}
	m := d.counters.read()
	m.Seconds, m.TouchedPages, m.DirtyPages = st.Seconds, st.TouchedPages, st.DirtyPages
	for i, stalled := range d.stalls.Seconds() {
		m.VCPUs = append(m.VCPUs, api.VCPUMetrics{Exits: d.vcpus[i].Exits(),
			StallSeconds: stalled})
	}
	return m, nil
}

// counters are what a machine counts about itself.
type counters struct {
	mu       sync.Mutex  // guards what follows
	metrics  api.Metrics // of pauses and checkpoints
	pausedAt time.Time   // zero: it is not paused, or it never ran
}

func (c *counters) paused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.Pauses++
	c.pausedAt = time.Now()
}

func (c *counters) resumed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.PausedSeconds = c.pausedSeconds()
	c.pausedAt = time.Time{}
}

// pausedSeconds includes a pause that has not ended yet. c.mu is held.
func (c *counters) pausedSeconds() float64 {
	if c.pausedAt.IsZero() {
		return c.metrics.PausedSeconds
	}
	return c.metrics.PausedSeconds + time.Since(c.pausedAt).Seconds()
}

func (c *counters) checkpoint(s api.CheckpointReply, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.metrics.FailedCheckpoints++
		return
	}
	c.metrics.Checkpoints++
	c.metrics.LastCheckpoint = &s
}

func (c *counters) read() api.Metrics {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.metrics
	m.PausedSeconds = c.pausedSeconds()
	return m
}
