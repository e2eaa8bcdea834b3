package vmm

import (
	"sync"
	"time"

	"github.com/thawfs/thaw/vmm/api"
)

// counters are what a machine counts about itself.
type counters struct {
	mu          sync.Mutex // guards what follows
	pauses      uint64
	pausedAt    time.Time // zero: it is not, or never ran
	pausedFor   time.Duration
	checkpoints uint64
	failed      uint64
	last        *api.CheckpointReply
}

func (c *counters) paused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pauses++
	c.pausedAt = time.Now()
}

func (c *counters) resumed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.pausedAt.IsZero() {
		c.pausedFor += time.Since(c.pausedAt)
	}
	c.pausedAt = time.Time{}
}

func (c *counters) checkpoint(s api.CheckpointReply, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed++
		return
	}
	c.checkpoints++
	c.last = &s
}
