package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/thawfs/thaw/wss"
)

// A schedule says when a restored machine wants the pieces of its working set's feed.
type schedule struct {
	pieces []due
	// timed: the record has times of first touch. Otherwise the pieces have none.
	timed bool
}

// due is when a piece is wanted.
type due struct {
	pages int
	// at is the earliest first touch of its pages, counted from the first instruction.
	at time.Duration
}

// never is later than any time of a record.
const never = time.Duration(1<<63 - 1)

// fileWorkingSet is the name of the file of a checkpoint with the record of its working set.
const fileWorkingSet = "working-set"

// maxRecord bounds a record that is read for its times: 64 bytes for each run that a set can have.
const maxRecord = 64 * wss.MaxRuns

// newSchedule looks up the pages of a feed in the record of its set; nil: there is no record.
//
// Only a trace and the reads of a restore say when a machine touches a page after it. A page of which
// neither tells, in a set that has times, was not touched while these were recorded: it is wanted at the
// end of the recording.
func newSchedule(feed Feed, record *wss.Set) *schedule {
	times, end := firstTouches(record)
	s := &schedule{pieces: make([]due, feed.Len()), timed: len(times) > 0}
	var gfns []uint64
	for i := range s.pieces {
		gfns = feed.GFNs(i, gfns[:0])
		s.pieces[i] = due{pages: len(gfns), at: never}
		if !s.timed {
			continue
		}
		at := end
		for _, t := range times {
			at = min(at, t.earliest(gfns))
		}
		s.pieces[i].at = at
	}
	return s
}

// touches are the first touches that one source saw, by gfn. Its runs do not overlap.
type touches []wss.Run

// firstTouches are the first touches after a restore, one list for each source that tells them, and the
// end of the recording.
func firstTouches(record *wss.Set) (all []touches, end time.Duration) {
	if record == nil {
		return nil, 0
	}
	end = record.Window
	for _, source := range []wss.Source{wss.SourceTrace, wss.SourceRead} {
		var t touches
		for _, r := range record.Runs {
			if r.Source == source {
				t = append(t, r)
				end = max(end, r.At)
			}
		}
		if len(t) > 0 {
			slices.SortFunc(t, func(a, b wss.Run) int { return cmp.Compare(a.GFN, b.GFN) })
			all = append(all, t)
		}
	}
	return all, end
}

// earliest is the first touch of one of some pages; never if none of them is known.
func (t touches) earliest(gfns []uint64) time.Duration {
	at := never
	var run wss.Run // the last one that was found: neighbours come one after another
	for _, gfn := range gfns {
		if gfn < run.GFN || gfn >= run.End() {
			i := sort.Search(len(t), func(i int) bool { return t[i].End() > gfn })
			if i == len(t) || t[i].GFN > gfn {
				continue
			}
			run = t[i]
		}
		at = min(at, run.At)
	}
	return at
}

// readRecord reads the record of a checkpoint's working set; nil if it has none.
func readRecord(ctx context.Context, store Store, c Checkpoint) (_ *wss.Set, err error) {
	size, ok := c.Files[fileWorkingSet]
	if !ok || size == 0 {
		return nil, nil
	}
	if size > maxRecord {
		return nil, fmt.Errorf("read %s: %d bytes, at most %d can be", fileWorkingSet, size, maxRecord)
	}
	f, err := store.OpenFile(ctx, c, fileWorkingSet)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", fileWorkingSet, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	record, err := wss.Parse(io.NewSectionReader(f, 0, size))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", fileWorkingSet, err)
	}
	return record, nil
}
