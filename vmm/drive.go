package vmm

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/vmm/api"
)

// driver is the machine as the API sees it.
type driver struct{ *Machine }

// Status implements api.Machine.
func (d driver) Status() (api.Status, error) { return d.Machine.Status() }

// Checkpoint implements api.Machine.
func (d driver) Checkpoint(ctx context.Context, r api.CheckpointRequest) (api.CheckpointReply,
	error) {
	s, err := d.Machine.checkpoint(ctx, r.Dir, r.Stop)
	return api.CheckpointReply(s), err
}

// Conflict implements api.Machine.
func (d driver) Conflict(err error) bool {
	return errors.Is(err, ErrEnded) || errors.Is(err, ErrRunning) || errors.Is(err, fs.ErrExist)
}

// Status tells what the machine is doing.
func (m *Machine) Status() (api.Status, error) {
	p := m.ports.snapshot()
	g := m.guestInfo(p)
	s := api.Status{MemoryBytes: m.mem.size, VCPUs: m.facts.VCPUs, Program: g.Program, Args: g.Args,
		Units: g.Units, Ready: g.Ready, Done: g.Done, DoneNow: m.ports.series.progress("").Total}
	m.mu.Lock()
	s.State = string(m.state)
	if m.err != nil {
		s.Error = m.err.Error()
	}
	if !m.first.IsZero() {
		s.Seconds = time.Since(m.first).Seconds()
	}
	m.mu.Unlock()
	if m.tracker != nil {
		s.Restored = filepath.Dir(m.mem.file.Name())
		touched, dirty, err := m.tracker.scan()
		if err != nil {
			return s, err
		}
		t, d := touched.Count(), dirty.Count()
		s.TouchedPages, s.DirtyPages = &t, &d
	}
	return s, nil
}
