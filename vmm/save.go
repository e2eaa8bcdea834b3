package vmm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/wss"
)

// Names of the files of a checkpoint directory.
const (
	memoryFile = "memory"
	stateFile  = "state"
	infoFile   = "info.json"
)

// save is one checkpoint in the making: a directory beside its place.
type save struct {
	m     *Machine
	opt   CheckpointOptions
	dir   string // where it is to be
	stats CheckpointStats

	running bool // the machine ran when it was asked for
	paused  bool
	since   time.Time // of the pause

	tmp    string   // "": there is none any more
	held   *os.File // the lock on it, until the checkpoint is in its place or given up
	files  []diskFile
	memory diskFile
	id     identity
	parent *base     // opt.Diff: what it is relative to
	runs   []PageRun // the pages that it has

	sets      *wss.Set      // working sets estimated so far; nil: none
	spaces    addressSpaces // found on the way
	recording *recording    // nil: there is none
}

// prepare makes what can be made while the guest runs.
func (s *save) prepare() (err error) {
	s.stats.Dir, s.stats.MemoryBytes = s.dir, s.m.mem.size
	if _, err := os.Lstat(s.dir); err == nil {
		return &fs.PathError{Op: "create", Path: s.dir, Err: fs.ErrExist}
	}
	if s.opt.Diff {
		if err := s.checkParent(); err != nil {
			return err
		}
	}
	switch {
	case s.m.is(StateEnded):
		return ErrEnded
	case s.m.tracing:
		return ErrTracing
	case s.opt.Trace > 0 && !s.running:
		return ErrNotRunning
	}
	if err := s.makeUnfinished(); err != nil {
		return err
	}
	if s.memory, err = s.create(memoryFile); err != nil {
		return errors.Join(err, s.discard())
	}
	return nil
}

// checkParent makes sure that the pages which a differential checkpoint leaves out are there.
func (s *save) checkParent() error {
	if s.parent = s.m.mem.parent(); s.parent == nil {
		return ErrNoParent
	}
	s.stats.Parent = s.parent.dir
	sections, err := readStateFile(filepath.Join(s.parent.dir, stateFile))
	if err != nil || identify(sections) != s.parent.id {
		why := "it is another checkpoint now"
		if err != nil {
			why = err.Error()
		}
		return &ParentError{Dir: s.dir, Parent: s.parent.dir, Why: why}
	}
	return nil
}

func (s *save) create(name string) (diskFile, error) {
	f, err := s.opt.disk.Create(filepath.Join(s.tmp, name))
	if err == nil {
		s.files = append(s.files, f)
	}
	return f, err
}

// capture writes a paused machine, as far as into the page cache.
func (s *save) capture(ctx context.Context) error {
	var state saved
	err := timed(&s.stats.StateSeconds, func() (err error) {
		state, err = s.m.save()
		return err
	})
	if err != nil {
		return err
	}
	if err := timed(&s.stats.CopySeconds, func() error { return s.copyMemory(ctx) }); err != nil {
		return err
	}
	return timed(&s.stats.StateSeconds, func() error {
		return errors.Join(s.writeState(&state), s.writeInfo(&state), s.writeSets())
	})
}

func (s *save) copyMemory(ctx context.Context) (err error) {
	mem := s.m.mem
	if !s.opt.Diff {
		s.runs = []PageRun{{0, mem.size / pageSize}}
		s.stats.WrittenBytes, err = mem.copyTo(ctx, s.memory)
		return err
	}
	s.runs, s.stats.WrittenBytes, err = mem.copyChanged(ctx, s.memory)
	for _, r := range s.runs {
		s.stats.ChangedPages += r.Count
	}
	return err
}

func (s *save) writeState(state *saved) error {
	sections, err := state.sections()
	if err != nil {
		return err
	}
	// What cannot be read back is not worth a checkpoint.
	if _, err := decodeSaved(sections); err != nil {
		return err
	}
	s.id = identify(sections)
	if s.opt.Diff {
		c := changed{size: s.m.mem.size, ParentID: s.parent.id, Parent: s.parent.dir, runs: s.runs}
		sec, err := c.section()
		if err != nil {
			return err
		}
		sections = append(sections, sec)
	}
	b, err := encodeState(sections)
	if err != nil {
		return err
	}
	return s.write(stateFile, b)
}

func (s *save) writeInfo(state *saved) error {
	info := s.m.info(state)
	info.Differential = s.opt.Diff
	info.ChangedPages = s.stats.ChangedPages
	info.Paging = state.paging(s.spaces)
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return s.write(infoFile, append(b, '\n'))
}

// writeSets writes the working sets that are known before the checkpoint.
func (s *save) writeSets() error {
	if s.sets == nil {
		return nil
	}
	var text bytes.Buffer
	if _, err := s.sets.WriteTo(&text); err != nil {
		return err
	}
	return s.write(setFile, text.Bytes())
}

func (s *save) write(name string, b []byte) error {
	f, err := s.create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return err
}

// commit gets all to disk and into its place.
func (s *save) commit() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Sync())
	}
	if err := errors.Join(append(errs, s.closeFiles())...); err != nil {
		return err
	}
	if err := s.opt.disk.SyncDir(s.tmp); err != nil {
		return err
	}
	if err := s.opt.disk.Rename(s.tmp, s.dir); err != nil {
		return err
	}
	s.tmp = s.dir // it is ours still: until it is sure to stay it may be taken back
	if err := s.opt.disk.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	s.tmp = ""
	return s.letGo()
}

// letGo gives the lock back.
func (s *save) letGo() error {
	if s.held == nil {
		return nil
	}
	held := s.held
	s.held = nil
	return held.Close()
}

func (s *save) closeFiles() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	s.files = nil
	return errors.Join(errs...)
}

// discard removes what there is of a checkpoint that came to nothing.
func (s *save) discard() error {
	err := s.closeFiles()
	if s.tmp != "" {
		err = errors.Join(err, s.opt.disk.RemoveAll(s.tmp))
	}
	s.tmp = ""
	return errors.Join(err, s.letGo())
}

// remapMemory maps the machine's memory from the checkpoint. The machine is paused.
func (s *save) remapMemory() (unused []*source, err error) {
	f, err := os.Open(filepath.Join(s.dir, memoryFile))
	if err != nil {
		return nil, err
	}
	// Only a try: what cannot be mapped at all must not take the old memory's place.
	trial, err := mapFile(f, s.m.mem.size, mapPrivate)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := trial.unmap(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b := &base{dir: s.dir, id: s.id}
	s.stats.CarriedPages, unused, err = s.m.mem.remap(f, s.runs, b, s.opt.pieces)
	if err != nil {
		return unused, fmt.Errorf("remap: %w", err)
	}
	return unused, nil
}
