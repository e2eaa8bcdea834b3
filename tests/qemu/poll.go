package qemu

import (
	"context"
	"time"
)

// poll asks until done says so. QEMU has events for some of what is waited for here, but the
// state can change between a command and its answer, so that asking is the simpler truth.
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
