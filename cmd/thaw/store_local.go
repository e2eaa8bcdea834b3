package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

// workingSetFile is the name of the working set in a checkpoint directory.
const workingSetFile = "working-set"

// localStore is a store that this process has open.
type localStore struct {
	store *index.Store
	log   *slog.Logger
}

var _ storeAPI = (*localStore)(nil)

func (s *localStore) Import(ctx context.Context, r importRequest, p progressFunc) (importReply,
	error) {
	src, err := openSource(r.Path)
	if err != nil {
		return importReply{}, err
	}
	defer src.close()
	o := index.ImportOptions{Name: r.Name, Profile: s.store.Profile(), Progress: indexProgress(p)}
	if r.Profile != "" {
		if o.Profile, err = index.ParseProfile(r.Profile); err != nil {
			return importReply{}, exitcode.With(exitcode.Usage, err)
		}
	}
	if r.IgnoreWorkingSet {
		delete(src.Files, workingSetFile)
	}
	var set *wss.Set
	var warning string
	if path, ok := src.Files[workingSetFile]; ok {
		if set, err = sourceWorkingSet(src, path); err != nil {
			return importReply{}, err
		}
		o.Hot, warning = hotWithin(set, wss.Policy{MaxShare: r.MaxShare})
	}
	layout, err := parseLayout(r.Layout)
	if err != nil {
		return importReply{}, err
	}
	var st layoutStats
	if o.Order, st, err = s.layoutOf(ctx, src.Source, set, layout == layoutVirtual); err != nil {
		return importReply{}, err
	}
	cp, stats, err := s.store.Import(ctx, src.Source, o)
	return importReply{cp, stats, st, warning}, err
}

// sourceWorkingSet reads the working set at path, which must fit the image.
func sourceWorkingSet(src *importSource, path string) (*wss.Set, error) {
	mem, err := src.Open()
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("working set: %w", err)
	}
	set, err := parseWorkingSet(text, mem.Size())
	if err != nil {
		return nil, exitcode.WithHint(exitcode.WorkingSet, fmt.Errorf("%s: %w", path, err),
			"mend or remove the file, or import with --ignore-working-set")
	}
	return set, nil
}

// parseWorkingSet reads a working set of an image of so many bytes.
func parseWorkingSet(text []byte, memoryBytes int64) (*wss.Set, error) {
	set, err := wss.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if err := set.Validate(uint64(memoryBytes) / index.PageSize); err != nil {
		return nil, err
	}
	if len(set.Runs) == 0 {
		return nil, errors.New("it has no pages")
	}
	return set, nil
}

func (s *localStore) Export(ctx context.Context, r exportRequest, p progressFunc) error {
	return s.store.Export(ctx, r.Name, r.Dir, index.ExportOptions{Progress: indexProgress(p)})
}

func (s *localStore) List(ctx context.Context) ([]index.Checkpoint,
	error) {
	return s.store.List(ctx)
}

func (s *localStore) Inspect(ctx context.Context, name string) (index.Details, error) {
	return s.store.Inspect(ctx, name)
}

func (s *localStore) Remove(ctx context.Context, name string) error {
	return s.store.Remove(ctx,
		name)
}

func (s *localStore) Check(ctx context.Context, r checkRequest, p progressFunc) (index.CheckReport,
	error) {
	return s.store.Check(ctx, index.CheckOptions{
		ReadData: r.ReadData, Rebuild: r.Rebuild, Progress: indexProgress(p),
	})
}

func (s *localStore) GC(ctx context.Context, r gcRequest, p progressFunc) (index.GCReport, error) {
	return s.store.GC(ctx, index.GCOptions{DryRun: r.DryRun, Progress: indexProgress(p)})
}

func (s *localStore) SetWorkingSet(ctx context.Context, name string, text []byte) (index.Checkpoint,
	error) {
	d, err := s.store.Inspect(ctx, name)
	if err != nil {
		return index.Checkpoint{}, err
	}
	set, err := parseWorkingSet(text, d.MemoryBytes)
	if err != nil {
		return index.Checkpoint{}, exitcode.With(exitcode.WorkingSet,
			fmt.Errorf("working set for %s: %w", name, err))
	}
	return s.store.SetWorkingSet(ctx, name, text, hotRunsOf(set))
}

func (s *localStore) ReadFile(ctx context.Context, name, file string) ([]byte, error) {
	return s.store.ReadFile(ctx, name, file)
}

// closePatience is how long the index may take to be written.
const closePatience = 20 * time.Second

// Close closes the store. The index library tries for ever to write what it has in memory, also
// where that cannot succeed (the disk is full, the directory is gone). The index can be made again,
// so the process may then end without it, as if it had been killed.
func (s *localStore) Close() error {
	done := make(chan error, 1)
	go func() { done <- s.store.Close() }()
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errors.New("the index cannot be written (is the disk full?); " +
			"it is mended at the next open")
	}
}

func indexProgress(p progressFunc) func(index.Progress) {
	if p == nil {
		return nil
	}
	return func(q index.Progress) {
		p(control.Progress{Stage: q.Stage, Unit: q.Unit, Done: q.Done, Total: q.Total})
	}
}
