package s3

import (
	"context"
	"slices"
	"sync"
	"time"
)

// hedger sends a request a second time when its answer is late. It is for requests that may be answered
// twice. Late is what 95 of the last 100 answers were not.
type hedger struct {
	mu      sync.Mutex
	times   [128]time.Duration // until the last answers began; guarded by mu, as all below
	n       int                // answers so far
	budget  float64            // second requests that may be sent
	failing float64            // how many of the last requests failed, 0 to 1
	stats   HedgeStats
}

// HedgeStats counts requests of a Store.
type HedgeStats struct {
	Requests int64 // reads that were sent, without second ones
	Second   int64 // that were sent because the first one was late
	Won      int64 // second ones that were there first
}

const (
	hedgeShare  = 0.05 // of all requests may be sent twice,
	hedgeBurst  = 4    // and so many one after another
	hedgeAfter  = 20   // answers: before that nobody knows what is late
	hedgeFailed = 0.1  // of requests that fail: more requests would not help
	hedgeLeast  = 5 * time.Millisecond
	hedgeMost   = 500 * time.Millisecond
)

func newHedger() *hedger { return &hedger{budget: hedgeBurst} }

// Stats returns the counters.
func (h *hedger) Stats() HedgeStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

// begin counts a request, and returns when its answer is late; 0 if that is not known.
func (h *hedger) begin() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Requests++
	h.budget = min(h.budget+hedgeShare, hedgeBurst)
	if h.n < hedgeAfter {
		return 0
	}
	known := slices.Clone(h.times[:min(h.n, len(h.times))])
	slices.Sort(known)
	return min(max(known[len(known)*95/100], hedgeLeast), hedgeMost)
}

// answered notes how long an answer took to begin.
func (h *hedger) answered(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.times[h.n%len(h.times)] = d
	h.n++
}

// ended notes whether a request failed.
func (h *hedger) ended(failed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing *= 0.95
	if failed {
		h.failing += 0.05
	}
}

// second says whether a second request may be sent.
func (h *hedger) second() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.budget < 1 || h.failing > hedgeFailed {
		return false
	}
	h.budget--
	h.stats.Second++
	return true
}

func (h *hedger) won() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stats.Won++
}

// get sends one request for the bytes of p. It calls begun when its answer begins, returns how many of them
// it has written from the first one on, and ends soon after its context has.
type get func(ctx context.Context, p []byte, begun func()) (int, error)

// outcome is what became of one request.
type outcome struct {
	n   int
	err error
}

// read sends a request for the bytes of p, and maybe a second one. Both have ended when it returns.
func (h *hedger) read(ctx context.Context, p []byte, g get) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := h.begin()
	first, begun := h.send(ctx, p, g)
	if late > 0 {
		timer := time.NewTimer(late)
		defer timer.Stop()
		select {
		case <-begun:
		case <-timer.C:
			if h.second() {
				return h.race(ctx, cancel, p, first, g)
			}
		}
	}
	r := <-first
	return r.n, r.err
}

// send starts a request. The first channel returned gets its outcome, the second is closed when the answer
// begins or the request ends.
func (h *hedger) send(ctx context.Context, p []byte, g get) (<-chan outcome, <-chan struct{}) {
	done, begun := make(chan outcome, 1), make(chan struct{})
	sent := time.Now()
	go func() {
		once := sync.OnceFunc(func() { close(begun) })
		n, err := g(ctx, p, func() {
			h.answered(time.Since(sent))
			once()
		})
		once()
		h.ended(err != nil && ctx.Err() == nil)
		done <- outcome{n, err}
	}()
	return done, begun
}

// race sends the second request, which has bytes of its own, and waits for the better one.
func (h *hedger) race(ctx context.Context, cancel func(), p []byte, first <-chan outcome, g get) (int, error) {
	other := make([]byte, len(p))
	second, _ := h.send(ctx, other, g)
	var a, b outcome
	select {
	case a = <-first:
		if a.err == nil {
			cancel()
			<-second
			return a.n, nil
		}
		b = <-second
	case b = <-second:
		if b.err != nil {
			a = <-first
			break
		}
		cancel()
		a = <-first // it writes to p until then
	}
	if b.n > a.n || b.err == nil {
		h.won()
		copy(p, other[:b.n])
		return b.n, b.err
	}
	return a.n, a.err
}
