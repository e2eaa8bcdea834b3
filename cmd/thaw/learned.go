package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/importer"
	"github.com/thawfs/thaw/cmd/thaw/internal/server"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm/state"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/learn"
)

// Beside a lesson the directory "playout" of a store has what restores have taught about the working set, in
// ID.learned (package learn). The server of a mount writes it. What has proved itself is made the working set
// by another process, which the server starts, as any command would do it.
const learnedSuffix = ".learned"

var _ fs.Learned = lessons{}

// LoadLearned implements fs.Learned.
func (l lessons) LoadLearned(id string) (*learn.Record, error) {
	name, err := l.name(id)
	if err != nil {
		return nil, err
	}
	text, err := l.read(name+learnedSuffix, learn.MaxText)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return learn.Parse(text)
}

// SaveLearned implements fs.Learned.
func (l lessons) SaveLearned(id string, text []byte) error {
	name, err := l.name(id)
	if err != nil {
		return err
	}
	return l.write(name+learnedSuffix, text)
}

// newLearnerCommand is what the server of a mount with --learn starts to make a set that has proved itself
// that of its checkpoint.
func newLearnerCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    server.LearnerCommand + " STORE NAME ID",
		Hidden: true,
		Args:   cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			v := index.Version{Name: args[1], ID: args[2]}
			return named(a.promote(cmd.Context(), args[0], v), "learned working set of %s", v.Name)
		},
	}
}

var errNotProved = errors.New("no learned working set of it has proved itself")

// promote makes the learned set of a checkpoint that has proved itself its working set.
func (a *app) promote(ctx context.Context, store string, v index.Version) error {
	known, err := a.lessons(ctx, store)
	if err != nil {
		return err
	}
	record, err := known.LoadLearned(v.ID)
	if err != nil {
		return err
	}
	if record == nil || !record.Proved() {
		return errNotProved
	}
	_, err = access.Write(ctx, a.stores, store, index.OpenOptions{}, func(s *index.Store) (struct{}, error) {
		return struct{}{}, promoteIn(ctx, s, v, record)
	})
	return err
}

// promoteIn is promote in a store that is open. Nothing is changed if the checkpoint or its set is another
// one than that of the record.
func promoteIn(ctx context.Context, s *index.Store, v index.Version, record *learn.Record) error {
	d, err := s.Inspect(ctx, v.Name)
	if err != nil {
		return err
	}
	if d.ID != v.ID {
		return index.ErrChanged
	}
	var old *wss.Set
	if d.WorkingSet != nil {
		text, err := s.ReadFile(ctx, v.Name, state.SetFile)
		if err != nil {
			return err
		}
		if old, err = importer.ParseWorkingSet(text, d.MemoryBytes); err != nil {
			return err
		}
		if old.Pages() > d.WorkingSet.Pages { // only its front is brought
			old.Runs = importer.Ranked(old)
			old = old.Bound(int64(d.WorkingSet.Pages) * wss.PageSize)
		}
	}
	if learn.SetID(learn.PagesOf(old)) != record.Base {
		return index.ErrChanged
	}
	set, err := record.Set(old)
	if err != nil {
		return err
	}
	if n := set.Pages(); n != record.Trial.Pages {
		return fmt.Errorf("it has %d pages, and that which has proved itself %d", n, record.Trial.Pages)
	}
	var text bytes.Buffer
	if _, err := set.WriteTo(&text); err != nil {
		return err
	}
	_, err = s.SetTimedWorkingSet(ctx, v.Name, text.Bytes(), importer.Runs(set), importer.Wanted(set))
	return err
}
