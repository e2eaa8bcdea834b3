package vmm

import (
	"sync"
	"time"

	"github.com/thawfs/thaw/vmm/api"
)

// counters are what a machine counts about itself.
type counters struct {
	mu       sync.Mutex  // guards what follows
	metrics  api.Metrics // of pauses and checkpoints
	pausedAt time.Time   // zero: it is not, or never ran
}

func (c *counters) paused() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.Pauses++
	c.pausedAt = time.Now()
}

func (c *counters) resumed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.PausedSeconds = c.pausedSeconds()
	c.pausedAt = time.Time{}
}

// pausedSeconds is with the pause that goes on. c.mu is held.
func (c *counters) pausedSeconds() float64 {
	if c.pausedAt.IsZero() {
		return c.metrics.PausedSeconds
	}
	return c.metrics.PausedSeconds + time.Since(c.pausedAt).Seconds()
}

func (c *counters) checkpoint(s api.CheckpointReply, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.metrics.FailedCheckpoints++
		return
	}
	c.metrics.Checkpoints++
	c.metrics.LastCheckpoint = &s
}

func (c *counters) read() api.Metrics {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.metrics
	m.PausedSeconds = c.pausedSeconds()
	return m
}
