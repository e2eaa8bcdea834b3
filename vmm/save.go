package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/thawfs/thaw/vmm/api"
	"github.com/thawfs/thaw/vmm/kvm"
	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/vmm/vcpu"
	"github.com/thawfs/thaw/wss"
)

// save is a checkpoint that is being made: a directory with a temporary name beside its final one.
type save struct {
	m     *Machine
	opt   checkpointOptions
	dir   string // its final path
	stats api.CheckpointReply

	running bool // the machine ran when the checkpoint was requested
	paused  bool
	since   time.Time // of the pause

	tmp    string   // the directory now; "": it was removed
	held   *os.File // its lock, until the checkpoint is complete or discarded
	files  []outFile
	memory outFile
	id     state.ID
	parent *ram.Base     // opt.Diff: the parent checkpoint
	runs   []ram.PageRun // opt.Diff: the pages in its memory file

	sets      *wss.Set            // the working sets estimated so far; nil: none
	spaces    state.AddressSpaces // found by the scan
	vcpus     []state.VCPU        // as saved
	recording *recording          // nil: there is none
}

// prepare does what can be done while the guest runs.
func (s *save) prepare() (err error) {
	s.stats.Dir, s.stats.MemoryBytes = s.dir, s.m.mem.Size()
	if _, err := os.Lstat(s.dir); err == nil {
		return &fs.PathError{Op: "create", Path: s.dir, Err: fs.ErrExist}
	}
	if s.opt.Diff {
		if err := s.checkParent(); err != nil {
			return err
		}
	}
	switch {
	case s.m.is(phaseEnded):
		return errEnded
	case s.m.tracing:
		return errTracing
	case s.opt.Trace > 0 && !s.running:
		return errNotRunning
	}
	if err := s.makeUnfinished(); err != nil {
		return err
	}
	if s.memory, err = s.create(state.MemoryFile); err != nil {
		return errors.Join(err, s.discard())
	}
	return nil
}

// checkParent makes sure that the parent of a differential checkpoint still exists and is the same.
func (s *save) checkParent() error {
	if s.parent = s.m.mem.Base(); s.parent == nil {
		return errNoParent
	}
	s.stats.Parent = s.parent.Dir
	id, err := state.ReadID(s.parent.Dir)
	if err != nil || id != s.parent.ID {
		why := "the directory has a different checkpoint now"
		if err != nil {
			why = err.Error()
		}
		return &state.ParentError{Dir: s.dir, Parent: s.parent.Dir, Why: why}
	}
	return nil
}

func (s *save) create(name string) (outFile, error) {
	f, err := s.opt.fileSystem.Create(filepath.Join(s.tmp, name))
	if err == nil {
		s.files = append(s.files, f)
	}
	return f, err
}

// capture writes the state and memory of the paused machine into files, without a sync.
func (s *save) capture(ctx context.Context) error {
	var read state.Machine
	err := timed(&s.stats.StateSeconds, func() (err error) {
		read, err = s.m.save()
		return err
	})
	if err != nil {
		return err
	}
	s.vcpus = read.VCPUs
	if err := timed(&s.stats.CopySeconds, func() error { return s.copyMemory(ctx) }); err != nil {
		return err
	}
	return timed(&s.stats.StateSeconds, func() error {
		return errors.Join(s.writeState(&read), s.writeInfo(&read), s.writeSets())
	})
}

func (s *save) copyMemory(ctx context.Context) (err error) {
	mem := s.m.mem
	if !s.opt.Diff {
		s.runs = []ram.PageRun{{First: 0, Count: mem.Size() / pageSize}}
		s.stats.WrittenBytes, err = mem.CopyTo(ctx, s.memory)
		return err
	}
	s.runs, s.stats.WrittenBytes, err = mem.CopyChanged(ctx, s.memory, state.MaxRuns)
	for _, r := range s.runs {
		s.stats.ChangedPages += r.Count
	}
	return err
}

func (s *save) writeState(read *state.Machine) error {
	var c *state.Changed
	if s.opt.Diff {
		c = &state.Changed{Size: s.m.mem.Size(), ParentID: s.parent.ID, Parent: s.parent.Dir, Runs: s.runs}
	}
	b, id, err := read.Encode(c)
	if err != nil {
		return err
	}
	s.id = id
	return s.write(state.StateFile, b)
}

func (s *save) writeInfo(read *state.Machine) error {
	info := state.Info{Format: state.InfoFormat, Created: time.Now().UTC().Truncate(time.Second),
		MemoryBytes: s.m.mem.Size(), PageSize: pageSize, RAMBytes: ram.Total(read.Facts.Regions),
		Regions: read.Facts.Regions, VCPUs: read.Facts.VCPUs, Guest: s.m.guestInfo(read.Ports),
		Differential: s.opt.Diff, ChangedPages: s.stats.ChangedPages, Paging: read.Paging(s.spaces)}
	if b := s.m.mem.Base(); b != nil {
		info.Parent = b.Dir
	}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return s.write(state.InfoFile, append(b, '\n'))
}

// writeSets writes the working set that was estimated before the checkpoint.
func (s *save) writeSets() error {
	if s.sets == nil {
		return nil
	}
	f, err := s.create(state.SetFile)
	if err == nil {
		_, err = s.sets.WriteTo(io.NewOffsetWriter(f, 0))
	}
	return err
}

func (s *save) write(name string, b []byte) error {
	f, err := s.create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return err
}

// commit syncs the files and renames the directory to its final path.
func (s *save) commit() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Sync())
	}
	if err := errors.Join(append(errs, s.closeFiles())...); err != nil {
		return err
	}
	if err := s.opt.fileSystem.SyncDir(s.tmp); err != nil {
		return err
	}
	if err := s.opt.fileSystem.Rename(s.tmp, s.dir); err != nil {
		return err
	}
	s.tmp = s.dir // removed again if the sync of its parent directory fails
	if err := s.opt.fileSystem.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	s.tmp = ""
	return s.letGo()
}

// letGo releases the lock.
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

// discard removes the files of a failed checkpoint.
func (s *save) discard() error {
	err := s.closeFiles()
	if s.tmp != "" {
		err = errors.Join(err, s.opt.fileSystem.RemoveAll(s.tmp))
	}
	s.tmp = ""
	return errors.Join(err, s.letGo())
}

// remapMemory maps the machine's memory from the checkpoint. The machine is paused.
func (s *save) remapMemory() (unused ram.Files, err error) {
	f, err := os.Open(filepath.Join(s.dir, state.MemoryFile))
	if err != nil {
		return nil, err
	}
	b := ram.Base{Dir: s.dir, ID: s.id}
	s.stats.CarriedPages, unused, err = s.m.mem.Remap(f, s.runs, b, s.opt.pieces)
	if err != nil {
		return unused, fmt.Errorf("remap: %w", err)
	}
	return unused, nil
}

// save reads the state. The machine must be paused.
func (m *Machine) save() (state.Machine, error) {
	switch {
	case m.is(phaseRunning):
		return state.Machine{}, vcpu.ErrRunning
	case m.is(phaseEnded):
		return state.Machine{}, errEnded
	}
	s := state.Machine{Facts: m.facts, VCPUs: make([]state.VCPU, len(m.vcpus))}
	// The pause has drained the devices. Draining must come before the vCPUs and controllers are saved:
	// a device that finishes a request raises an interrupt, which must be in their state.
	if m.drained != nil {
		return state.Machine{}, m.drained
	}
	var err error
	if s.Devices, err = m.devices.States(); err != nil {
		return state.Machine{}, err
	}
	s.Ports = m.ports.snapshot()
	err = m.eachVCPU("save", func(i int, k *kvm.VCPU) (err error) {
		if m.msrs == nil { // only once: the vCPUs' CPUID does not change
			m.msrs = state.GuestMSRs(m.known, k, m.facts.IRQChip)
		}
		s.VCPUs[i], err = state.SaveVCPU(k, m.msrs, m.facts.IRQChip)
		return err
	})
	if err != nil {
		return state.Machine{}, err
	}
	if m.facts.IRQChip {
		if s.Chips, err = state.SaveChips(m.vm); err != nil {
			return state.Machine{}, err
		}
	}
	return s, nil
}

func (s *save) note(format string, args ...any) { s.stats.Note = fmt.Sprintf(format, args...) }

// timed adds the time that f takes to seconds.
func timed(seconds *float64, f func() error) error {
	begin := time.Now()
	err := f()
	*seconds += time.Since(begin).Seconds()
	return err
}

// locked calls f with the machine's control lock held.
func (s *save) locked(f func() error) error {
	s.m.control.Lock()
	defer s.m.control.Unlock()
	return f()
}
