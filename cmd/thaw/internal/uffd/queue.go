package uffd

import (
	"context"
	"sync"
	"time"
)

// A fault is a page that a thread of the VM waits for.
type fault struct {
	unit uint64
	at   time.Time // when its message was read
}

// A queue has the faults that were read and not yet answered. It has no bound, so that the reader of messages
// never waits; each thread of the VM has one in it at most, or some more where signals interrupt it.
type queue struct {
	mu          sync.Mutex
	some        sync.Cond
	faults      []fault // from head on
	head        int
	outstanding int // in the queue, or taken and not answered
	closed      bool
	idle        chan struct{} // closed when nothing is outstanding, for those who wait for that
}

func newQueue() *queue {
	q := &queue{}
	q.some.L = &q.mu
	return q
}

func (q *queue) put(f fault) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.head == len(q.faults) {
		q.faults, q.head = q.faults[:0], 0
	}
	q.faults = append(q.faults, f)
	q.outstanding++
	q.some.Signal()
}

// take waits for a fault; false: the queue is closed.
func (q *queue) take() (fault, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.head == len(q.faults) && !q.closed {
		q.some.Wait()
	}
	if q.closed {
		return fault{}, false
	}
	f := q.faults[q.head]
	q.head++
	return f, true
}

// answered notes that a fault which was taken is answered, and says whether none is in the queue.
func (q *queue) answered() (empty bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.outstanding--; q.outstanding == 0 && q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
	return q.head == len(q.faults)
}

// empty says whether nobody waits to be taken.
func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head == len(q.faults)
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.some.Broadcast()
}

// maxYield bounds one wait, so that the working set comes under any load.
const maxYield = 2 * time.Millisecond

// yield returns when no fault is outstanding, or after maxYield.
func (q *queue) yield(ctx context.Context) {
	q.mu.Lock()
	if q.outstanding == 0 {
		q.mu.Unlock()
		return
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	t := time.NewTimer(maxYield)
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
	case <-ctx.Done():
	}
}
