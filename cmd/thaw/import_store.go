package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

// workingSetFile is the name of the working set in a checkpoint directory.
const workingSetFile = "working-set"

// importRequest says what to import.
type importRequest struct {
	Name             string
	Profile          string  // "" takes the store's
	IgnoreWorkingSet bool    // import the memory, ignore a working-set file
	Layout           string  // of the pages in no working set; "" takes layoutVirtual
	MaxShare         float64 // of a wss.Policy for what is prefetched
}

// importReply is what `thaw import --json` prints.
type importReply struct {
	Checkpoint index.Checkpoint  `json:"checkpoint"`
	Stats      index.ImportStats `json:"stats"`
	Layout     layoutStats       `json:"layout"`
	Warning    string            `json:"warning,omitempty"` // of a working set that is too large
}

// importInto imports src into a store that is open for writing.
func importInto(ctx context.Context, store *index.Store, src *importSource, r importRequest,
	log *slog.Logger, p progressFunc) (importReply, error) {
	o := index.ImportOptions{Name: r.Name, Profile: store.Profile(), Progress: p}
	var err error
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
		o.WorkingSet, warning = workingSetWithin(set, wss.Policy{MaxShare: r.MaxShare})
	}
	layout, err := parseLayout(r.Layout)
	if err != nil {
		return importReply{}, err
	}
	var st layoutStats
	if o.Order, st, err = layoutOf(ctx, src.Source, set, layout == layoutVirtual, log); err != nil {
		return importReply{}, err
	}
	cp, stats, err := store.Import(ctx, src.Source, o)
	return importReply{cp, stats, st, warning}, err
}

// sourceWorkingSet reads the working set at path, which must fit the image.
func sourceWorkingSet(src *importSource, path string) (*wss.Set, error) {
	mem, done, err := src.Open()
	if err != nil {
		return nil, err
	}
	defer done()
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("working set: %w", err)
	}
	set, err := parseWorkingSet(text, mem.Size())
	if err != nil {
		return nil, exitcode.WithHint(exitcode.WorkingSet, fmt.Errorf("%s: %w", path, err),
			"correct or remove the file, or import with --ignore-working-set")
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
