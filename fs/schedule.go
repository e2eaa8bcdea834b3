package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/thawfs/thaw/index"
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

// scheduleFrom is the schedule that the store knows of a feed; nil: it was not told.
func scheduleFrom(feed Feed) *schedule {
	f, ok := feed.(index.TimedFeed)
	if !ok {
		return nil
	}
	dues, ok := f.Due()
	if !ok {
		return nil
	}
	if len(dues) != feed.Len() { // the times are known to be unknown
		return newSchedule(feed, nil)
	}
	s := &schedule{pieces: make([]due, len(dues)), timed: true}
	for i, d := range dues {
		s.pieces[i] = due{pages: int(d.Pages), at: d.At}
	}
	return s
}

// newSchedule looks up the pages of a feed in the record of its set; nil: there is no record.
func newSchedule(feed Feed, record *wss.Set) *schedule {
	s := &schedule{pieces: make([]due, feed.Len())}
	var times *wss.FirstTouches
	if record != nil {
		times = record.FirstTouches()
	}
	var gfns []uint64
	for i := range s.pieces {
		gfns = feed.GFNs(i, gfns[:0])
		s.pieces[i] = due{pages: len(gfns), at: never}
		if times == nil {
			continue
		}
		if at, known := times.Earliest(gfns); known {
			s.pieces[i].at, s.timed = at, true
		}
	}
	return s
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
