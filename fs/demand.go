package fs

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// demand counts the READs of memory that are outstanding, so that work which is not urgent can
// wait until there are none.
type demand struct {
	outstanding atomic.Int64
	waiters     atomic.Int64
	mu          sync.Mutex
	idle        chan struct{} // closed when outstanding falls to 0 with waiters there. Guarded by mu.
}

// maxYield bounds one wait, so that work in the background makes slow progress under any load.
const maxYield = 2 * time.Millisecond

func (d *demand) begin() { d.outstanding.Add(1) }

func (d *demand) end() {
	if d.outstanding.Add(-1) > 0 || d.waiters.Load() == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle != nil {
		close(d.idle)
		d.idle = nil
	}
}

// yield returns when no READ is outstanding, or after maxYield.
func (d *demand) yield(ctx context.Context) {
	if d.outstanding.Load() == 0 {
		return
	}
	d.waiters.Add(1)
	defer d.waiters.Add(-1)
	d.mu.Lock()
	if d.idle == nil {
		d.idle = make(chan struct{})
	}
	idle := d.idle
	d.mu.Unlock()
	if d.outstanding.Load() == 0 {
		return
	}
	t := time.NewTimer(maxYield)
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
	case <-ctx.Done():
	}
}
