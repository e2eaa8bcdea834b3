package main

import (
	"context"
	"fmt"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/learn"
)

// historyReply is what `thaw ws show --history --json` prints.
type historyReply struct {
	Name string `json:"name"`
	// Pages are those of the working set, Bound how many a learned one has at most.
	Pages uint64 `json:"pages"`
	Bound uint64 `json:"bound"`
	// Restores counts those that were watched. Quality is over the newest with the newest set; nil: not known.
	Restores uint64         `json:"restores"`
	Quality  *learn.Quality `json:"quality,omitempty"`
	Trial    *learn.Trial   `json:"trial,omitempty"`
	History  []historyLine  `json:"history"`
}

// historyLine is one line of the history.
type historyLine struct {
	learn.Entry
	Precision *float64 `json:"precision,omitempty"`
	Recall    *float64 `json:"recall,omitempty"`
}

func newHistoryReply(name string, r *learn.Record) historyReply {
	reply := historyReply{Name: name, Pages: r.BasePages, Bound: r.Bound(), Restores: r.Restores, Trial: r.Trial,
		History: []historyLine{}}
	if q, ok := r.Quality(); ok {
		reply.Quality = &q
	}
	for _, e := range r.History {
		line := historyLine{Entry: e}
		if q, ok := e.Quality(); ok {
			line.Precision, line.Recall = &q.Precision, &q.Recall
		}
		reply.History = append(reply.History, line)
	}
	return reply
}

// runWSHistory prints what restores have taught about a working set.
func runWSHistory(ctx context.Context, a *app, args []string, text bool) error {
	switch {
	case len(args) > 2:
		return exitcode.Errorf(exitcode.Usage, "--history is of one checkpoint")
	case text:
		return exitcode.Errorf(exitcode.Usage, "--history and --text print different things: give one of them")
	}
	store, v, err := wsTarget(ctx, args)
	if err != nil {
		return err
	}
	d, err := access.Read(ctx, a.stores, store, func(s *index.Store) (index.Details, error) {
		return s.Inspect(ctx, v.Name)
	})
	if err != nil {
		return err
	}
	known, err := a.lessons(ctx, store)
	if err != nil {
		return err
	}
	record, err := known.LoadLearned(d.ID)
	if err != nil {
		return fmt.Errorf("what restores of %s have taught: %w", v.Name, err)
	}
	if record == nil {
		return exitcode.WithHint(exitcode.NotFound, fmt.Errorf("no restore has taught anything about %s", v.Name),
			`"thaw mount --learn" learns from restores`)
	}
	reply := newHistoryReply(v.Name, record)
	if a.json {
		return a.printJSON(reply)
	}
	a.showHistory(reply)
	return nil
}

func (a *app) showHistory(r historyReply) {
	rows := make([][]string, len(r.History))
	for i, e := range r.History {
		number := "-"
		if e.Restore > 0 {
			number = count(e.Restore)
		}
		rows[i] = []string{number, e.At.UTC().Format("2006-01-02 15:04:05"), e.Set, count(e.Pages), "-", "-", "-",
			"-", "-", e.Decision}
		if e.Counted {
			copy(rows[i][4:], []string{
				fmt.Sprintf("%d of %d", e.Used+e.CheckedUsed, e.HeldOut+e.Checked),
				share(e.Recall), share(e.Precision), count(e.Late), count(e.Missed)})
		}
	}
	a.table([]string{">restore", "when (UTC)", "set", ">pages", ">used of held out", ">recall", ">precision",
		">late", ">missed", "decision"}, rows)
	a.printf("\n%s pages (%s), at most %s are learned", count(r.Pages), size(int64(r.Pages)*wss.PageSize),
		count(r.Bound))
	if r.Quality != nil {
		a.printf("; over the last %d restores with the newest set: recall %.1f %%, precision %.1f %%",
			r.Quality.Restores, r.Quality.Recall*100, r.Quality.Precision*100)
	}
	a.printf("\n")
}

// share is a part of a whole, for people.
func share(p *float64) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", *p*100)
}
