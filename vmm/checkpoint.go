package vmm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/ram"
)

// Checkpoint writes the machine into a new directory, which appears complete or not at all. A running
// machine continues afterwards, even if the checkpoint failed. After a successful checkpoint its memory
// is mapped from the files in dir, which must not be changed: see the package documentation.
func (m *Machine) Checkpoint(ctx context.Context, dir string) (api.CheckpointReply, error) {
	return m.checkpoint(ctx, dir, checkpointOptions{})
}

// checkpoint is Checkpoint with options.
func (m *Machine) checkpoint(ctx context.Context, dir string, o checkpointOptions) (
	api.CheckpointReply, error) {
	begin := time.Now()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return api.CheckpointReply{}, err
	}
	if o.fileSystem == nil {
		o.fileSystem = hostFiles{}
	}
	if o.pieces == 0 {
		o.pieces = ram.MaxRemap
	}
	s := &save{m: m, opt: o, dir: dir}
	if o.Scan.Within > 0 {
		err = s.scan(ctx)
	}
	if err == nil {
		err = s.locked(func() error { return s.run(ctx) })
	}
	if err == nil {
		err = s.trace(ctx)
	}
	s.stats.Seconds = time.Since(begin).Seconds()
	m.counters.checkpoint(s.stats, err)
	if err != nil {
		return api.CheckpointReply{}, fmt.Errorf("checkpoint to %s: %w", dir, err)
	}
	m.log.Info("checkpoint written", "dir", dir, "memory", s.stats.MemoryBytes,
		"written", s.stats.WrittenBytes, "pause_seconds", s.stats.PauseSeconds,
		"remapped", s.stats.Remapped)
	if s.stats.Note != "" {
		m.log.Warn(s.stats.Note)
	}
	return s.stats, nil
}

// run makes the checkpoint. The order of the steps keeps the guest's pause short; ram/remap.go explains
// why it is correct.
func (s *save) run(ctx context.Context) error {
	s.running = s.m.is(phaseRunning)
	if err := s.prepare(); err != nil {
		return err
	}
	err := s.stop()
	if err == nil {
		err = s.capture(ctx)
	}
	traced := s.opt.Trace > 0
	remap := err == nil && (traced || !s.opt.NoRemap && !s.opt.Stop)
	marked := false
	if remap && !traced { // a trace must begin at the state that was saved, so the guest waits
		marked = s.mark()
	}
	if s.running && !s.opt.Stop && (marked || !remap) {
		err = errors.Join(err, s.goOn())
	}
	s.stats.WaitedForSync = s.running && s.paused
	if err == nil {
		err = timed(&s.stats.SyncSeconds, s.commit)
	}
	if err != nil {
		return errors.Join(err, s.goOn(), s.discard(), s.m.mem.Forget())
	}
	if s.opt.Stop && !traced {
		s.stats.PauseSeconds = time.Since(s.since).Seconds()
		s.m.end(errStopped)
		return nil
	}
	if remap {
		s.remap()
	}
	return s.goOn()
}

// stop pauses the machine.
func (s *save) stop() error {
	s.since = time.Now()
	s.paused = true
	return timed(&s.stats.StateSeconds, s.m.pause)
}

// goOn resumes the machine if it was running before the checkpoint. If the machine has ended meanwhile,
// that is not an error: the checkpoint is still valid.
func (s *save) goOn() error {
	if !s.paused {
		return nil
	}
	s.paused = false
	s.stats.PauseSeconds += time.Since(s.since).Seconds()
	if !s.running {
		return nil
	}
	if err := s.m.resume(); err != nil && !errors.Is(err, errEnded) {
		return err
	}
	return nil
}

// mark starts to track the pages that the guest changes from now on. It returns false if the host
// cannot do that.
func (s *save) mark() bool {
	err := timed(&s.stats.MarkSeconds, s.m.mem.Mark)
	if err != nil {
		s.note("the guest was paused until the checkpoint was on disk, because this host cannot track "+
			"changes: %v", err)
	}
	return err == nil
}

// remap maps the memory from the checkpoint. If that fails, the machine continues with the memory
// that it had.
func (s *save) remap() {
	if !s.paused {
		if err := s.stop(); err != nil { // it has ended
			s.paused = false
			return
		}
	}
	var unused ram.Files
	err := timed(&s.stats.RemapSeconds, func() (err error) {
		unused, err = s.remapMemory()
		return err
	})
	s.stats.Remapped = err == nil
	var lost *ram.LostError
	switch {
	case errors.As(err, &lost):
		s.m.end(lost)
	case err != nil:
		s.note("the memory is not mapped from the checkpoint: %v", err)
	}
	if s.opt.Trace > 0 && s.stats.Remapped {
		s.beginTrace()
	}
	err = s.goOn()
	// Closed only now, while the guest runs: the kernel needs some time to free the memory of a memfd.
	if err = errors.Join(err, unused.Close()); err != nil {
		s.m.log.Warn("after a checkpoint", "err", err)
	}
}

// checkpointOptions says how to save a machine.
type checkpointOptions struct {
	// Stop ends the machine once the checkpoint is complete, so the guest does nothing that the
	// checkpoint does not contain.
	Stop bool
	// Diff writes only the pages that changed since the checkpoint that the machine's memory is mapped from.
	Diff bool
	// NoRemap leaves the machine's memory mapped as it is.
	NoRemap bool
	// Scan reads the machine's access bits before the checkpoint, and records the touched pages as its
	// working set. The zero value: no scan.
	Scan scanOptions
	// Trace is how long the guest's first touches are recorded after the checkpoint, page by page, as
	// its working set; 0: no trace. It needs the memory to be mapped from the checkpoint.
	Trace time.Duration

	fileSystem fileSystem // nil: the operating system's
	pieces     int        // limit of a remap, 0: ram.MaxRemap
	way        string     // how to trace, even if the host has a better way; "": the best way
}

// scanOptions says how the working set before a checkpoint is estimated.
type scanOptions struct {
	Within time.Duration // the set is the pages touched in this time before the checkpoint; 0: no scan
	Budget float64       // share of the guest's time that the scan may take; 0: scan.DefaultBudget
}
