package main

import (
	"context"
	"errors"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/wss/scan"
)

// patientScan scans a guest again and again while it sleeps: a guest that does nothing sets no bits, so
// nothing can be found out about it, not even how its bits are cleared.
type patientScan struct {
	wait  time.Duration // for the guest to run, at most
	note  func(format string, args ...any)
	now   func() time.Time
	sleep func(context.Context, time.Duration) error
}

const (
	// napTime is between two tries. Each pauses the guest, if only for some milliseconds.
	napTime = 500 * time.Millisecond
	// defaultNap is how long a guest may sleep.
	defaultNap = time.Minute
)

// do calls try until it ends otherwise than because the guest sleeps.
func (p *patientScan) do(ctx context.Context, try func() error) error {
	begun := p.now()
	for n := 0; ; n++ {
		err := try()
		asleep, ok := errors.AsType[*scan.NoBitsError](err)
		waited := p.now().Sub(begun)
		switch {
		case !ok || !asleep.Halted && !asleep.Unseen:
			if n > 0 && err == nil {
				p.note("the guest slept for the first %v", waited.Round(100*time.Millisecond))
			}
			return err
		case waited+napTime > p.wait:
			return exitcode.WithHint(exitcode.Unsupported, err,
				"the guest did not run for "+waited.Round(100*time.Millisecond).String()+
					"; give it something to do, or wait longer with --wait")
		}
		if n == 0 {
			p.note("the guest sleeps; waiting up to %v for it to run", p.wait)
		}
		if err := p.sleep(ctx, napTime); err != nil {
			return err
		}
	}
}

func sleepFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
