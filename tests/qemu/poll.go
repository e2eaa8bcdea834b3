package qemu

import (
	"context"
	"time"
)

// poll asks repeatedly until done returns true. QEMU has events for some of these changes, but the
// state can also change between a command and its answer, so polling is simpler.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
