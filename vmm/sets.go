package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
)

// scan estimates the working set before the checkpoint.
func (s *save) scan(ctx context.Context) error {
	if !s.m.is(phaseRunning) {
		return errNotRunning
	}
	var stats api.ScanStats
	var err error
	s.sets, s.spaces, stats, err = scanAccess(ctx, &scanned{m: s.m}, s.opt.Scan)
	s.stats.Scan = &stats
	return err
}

// beginTrace begins to record what the guest touches. The machine is paused and its memory has just
// been mapped from the checkpoint. A failure is only noted: the checkpoint is valid without a trace.
func (s *save) beginTrace() {
	var err error
	if s.recording, err = s.m.record(s.opt.way); err != nil {
		s.note("first touches are not traced: %v", err)
		return
	}
	s.m.tracing = true
}

// trace records what the guest touches as it continues, adds that to the checkpoint, and then stops the
// machine if opt.Stop is set. Meanwhile the API can control the machine, but cannot save it again.
func (s *save) trace(ctx context.Context) error {
	if s.recording == nil {
		if s.opt.Trace > 0 && s.opt.Stop {
			s.m.end(errStopped)
		}
		return nil
	}
	set, stats, err := s.recording.run(ctx, s.opt.Trace)
	s.stats.PauseSeconds += s.recording.paused.Seconds()
	if err == nil {
		s.stats.Trace = &stats
		if err = s.putSets(s.tablesFirst(set)); err != nil {
			err = fmt.Errorf("the checkpoint was written, but without its working set: %w", err)
		}
	}
	return errors.Join(err, s.locked(func() error {
		s.m.tracing = false
		if err == nil && s.opt.Stop {
			s.m.end(errStopped)
		}
		return s.recording.close()
	}))
}

// tablesFirst returns the set with the guest's page tables moved to its front, because a restore reads
// them before the first instruction (guesttables.go).
func (s *save) tablesFirst(set *wss.Set) *wss.Set {
	r := newTableReader(s.m.mem, set.ImagePages)
	if err := r.walkAll(s.vcpus); err != nil {
		s.note("the working set does not list the page tables first: %v", err)
		return set
	}
	return set.First(r.seen)
}

// putSets adds a working set to the complete checkpoint. The file is replaced in one step.
func (s *save) putSets(set *wss.Set) error {
	if s.sets != nil {
		var err error
		if set, err = wss.Union(set, s.sets); err != nil {
			return err
		}
	}
	s.sets = set
	path := filepath.Join(s.dir, state.SetFile)
	part := filepath.Join(s.dir, "."+state.SetFile+".new") // hidden files do not belong to a checkpoint
	f, err := s.opt.fileSystem.Create(part)
	if err == nil {
		_, err = set.WriteTo(io.NewOffsetWriter(f, 0))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = s.opt.fileSystem.Replace(part, path)
	}
	if err != nil {
		return errors.Join(err, s.opt.fileSystem.RemoveAll(part))
	}
	return s.opt.fileSystem.SyncDir(s.dir)
}
