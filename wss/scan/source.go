package scan

import (
	"context"
	"time"

	"github.com/thawfs/thaw/wss"
)

// Source is where access bits are. [Tables] is one.
type Source interface {
	// Sweep finds the pages that were touched since the last sweep, and begins again. What the first
	// sweep finds was touched at any time before, so it says nothing.
	Sweep(ctx context.Context) (Sweep, error)
	// Pages is the number of pages of the image.
	Pages() uint64
	// Way says in words how it is done, for the record. It may change with each sweep.
	Way() string
}

// Sweep is what one sweep found.
type Sweep struct {
	// Fine pages were touched: each has an access bit of its own.
	Fine *wss.Bitmap
	// Coarse pages share the bit of a large page: at least one of those was touched.
	Coarse *wss.Bitmap
	// Paused is how long the guest was paused for it, Tested the part of that which the next sweep
	// will not take.
	Paused, Tested time.Duration
	// Refaults is the number of bits that had been set again since the last sweep, and Refault what
	// each of them cost the guest.
	Refaults uint64
	Refault  time.Duration
}

// Pender is a Source that can tell how many bits have been set again since the last sweep, without
// stopping the guest: so what a sweep will turn out to have cost is known before it.
type Pender interface {
	Pending() (refaults uint64, err error)
}

// Clock is the time, and waiting for it.
type Clock interface {
	Now() time.Time
	// Sleep waits; it returns early, with the context's error, when that ends.
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
