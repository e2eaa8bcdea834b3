package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
)

// Request says how a checkpoint is imported.
type Request struct {
	Name             string
	Parent           string         // of a diff of Firecracker; empty: it is none
	Replace          bool           // take the name over from a checkpoint that has it
	Profile          *index.Profile // nil: the store's
	IgnoreWorkingSet bool           // import the memory, ignore a working-set file
	Physical         bool           // pages in no working set are stored by their number
	Policy           wss.Policy     // of what is prefetched
	Log              *slog.Logger
	Progress         func(index.Progress) // may be called by several goroutines
}

// Reply is what `thaw import --json` prints.
type Reply struct {
	Checkpoint index.Checkpoint  `json:"checkpoint"`
	Stats      index.ImportStats `json:"stats"`
	Layout     Layout            `json:"layout"`
	Warning    string            `json:"warning,omitempty"` // of a working set that is too large
	Saw        string            `json:"saw,omitempty"`     // what was recognised, of another program
	Reading    string            `json:"reading,omitempty"` // why no VMM can go on from it
	Note       string            `json:"note,omitempty"`    // what could not be checked
}

// Import imports the source into a store that is open for writing.
func (src *Source) Import(ctx context.Context, store *index.Store, r Request) (reply Reply, err error) {
	o := index.ImportOptions{Name: r.Name, Replace: r.Replace, Profile: store.Profile(), Progress: r.Progress}
	if r.Profile != nil {
		o.Profile = *r.Profile
	}
	done, err := src.complete(ctx, store, r.Parent)
	if err != nil {
		return reply, err
	}
	defer done()
	if r.IgnoreWorkingSet {
		delete(src.Files, state.SetFile)
	}
	var set *wss.Set
	if path, ok := src.Files[state.SetFile]; ok && src.Stream == nil {
		if set, err = src.workingSet(path); err != nil {
			return reply, err
		}
		o.WorkingSet, reply.Warning = within(set, r.Policy)
		o.Wanted = Wanted(set)
	}
	if src.Stream == nil {
		if o.Order, reply.Layout, err = layoutOf(ctx, src.Source, set, !r.Physical, r.Log); err != nil {
			return reply, err
		}
	}
	reply.Checkpoint, reply.Stats, err = store.Import(ctx, src.Source, o)
	reply.Saw, reply.Reading, reply.Note = src.Saw, src.Reading, src.Note // of a stream they are known now
	return reply, err
}

// workingSet reads the working set at path, which must fit the image. The file may be of any size.
func (src *Source) workingSet(path string) (*wss.Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("working set: %w", err)
	}
	defer f.Close()
	set, err := parseSet(f, src.Image.Size())
	if err != nil {
		return nil, exitcode.WithHint(exitcode.WorkingSet, fmt.Errorf("%s: %w", path, err),
			"correct the file, or import with --ignore-working-set: it stays where it is")
	}
	return set, nil
}

// ParseWorkingSet reads a working set of an image of so many bytes.
func ParseWorkingSet(text []byte, memoryBytes int64) (*wss.Set, error) {
	return parseSet(bytes.NewReader(text), memoryBytes)
}

func parseSet(r io.Reader, memoryBytes int64) (*wss.Set, error) {
	set, err := wss.Parse(r)
	if err == nil {
		err = set.Validate(uint64(memoryBytes) / index.PageSize)
	}
	switch {
	case err != nil:
		return nil, err
	case len(set.Runs) == 0:
		return nil, errors.New("it has no pages")
	}
	return set, nil
}
