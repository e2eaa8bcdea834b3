package scan

import (
	"context"
	"time"

	"github.com/thawfs/thaw/wss"
)

// Source finds touched pages by access bits. [Tables] is a Source.
type Source interface {
	// Sweep returns the pages that were touched since the last sweep. Pages of the first sweep were
	// touched at any time before, so it gives no information.
	Sweep(ctx context.Context) (Sweep, error)
	// Pages is the number of pages of the image.
	Pages() uint64
	// Way describes the method in words, for the record. It may change with each sweep.
	Way() string
}

// Sweep is the result of one sweep.
type Sweep struct {
	// Fine has the touched pages with their own access bit.
	Fine *wss.Bitmap
	// Coarse has pages that share the bit of a large page, of which at least one was touched.
	Coarse *wss.Bitmap
	// Paused is how long the guest was paused for the sweep, and Tested the part of that which the next
	// sweep will not need.
	Paused, Tested time.Duration
	// Refaults is the number of bits that had been set again since the last sweep, and Refault is the
	// cost of each of them for the guest.
	Refaults uint64
	Refault  time.Duration
}

// Pender is a Source that can count the bits that have been set again since the last sweep, without
// pausing the guest. So the cost of a sweep in refaults is known before the next one.
type Pender interface {
	Pending() (refaults uint64, err error)
}

// Clock is a source of time.
type Clock interface {
	Now() time.Time
	// Sleep waits for d. If the context ends, it returns early with the context's error.
	Sleep(ctx context.Context, d time.Duration) error
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
