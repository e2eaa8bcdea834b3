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

// Checkpoint writes the machine into a new directory, which appears complete or not at all. A
// running machine goes on afterwards, also when writing fails; then its memory is mapped from the
// directory, which must stay as it is: see the package's documentation.
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

// run saves. The order is what keeps the guest's pause short, and ram/remap.go says why it is right.
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
	if remap && !traced { // a trace begins where the checkpoint is, so the guest has to wait
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

// goOn lets a machine that ran go on. It may have ended meanwhile; the checkpoint is none the worse
// for that.
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

// mark begins to count what the guest changes from now on. It is false on a host that cannot.
func (s *save) mark() bool {
	err := timed(&s.stats.MarkSeconds, s.m.mem.Mark)
	if err != nil {
		s.note("the guest had to wait for the disk: changes cannot be counted meanwhile: %v", err)
	}
	return err == nil
}

// remap maps the memory from the checkpoint. If that cannot be done the machine goes on as it was.
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
	// Here, while the guest runs: it takes the kernel a while to free the memory of a memfd.
	if err = errors.Join(err, unused.Close()); err != nil {
		s.m.log.Warn("after a checkpoint", "err", err)
	}
}

// checkpointOptions is how to save a machine.
type checkpointOptions struct {
	// Stop ends the machine when all is written: nothing that the guest does afterwards is lost.
	Stop bool
	// Diff writes only the pages that changed since the checkpoint that the machine is mapped from.
	Diff bool
	// NoRemap leaves the machine's memory mapped from what it is mapped from.
	NoRemap bool
	// Scan looks at the machine's access bits for so long before the checkpoint and records what was
	// touched as its working set; zero: it does not.
	Scan scanOptions
	// Trace lets the guest go on for so long and records what it touches first, page by page, as the
	// working set of the checkpoint; 0: it does not. It needs the memory mapped from the checkpoint.
	Trace time.Duration

	fileSystem fileSystem // nil: the operating system's
	pieces     int        // limit of a remap, 0: ram.MaxRemap
	way        string     // of tracing, even if there is a better one; "": the best
}

// scanOptions is how the working set before a checkpoint is estimated.
type scanOptions struct {
	Within time.Duration // what was touched in so long before the checkpoint
	Budget float64       // share of the guest's time; 0: scan.DefaultBudget
}
