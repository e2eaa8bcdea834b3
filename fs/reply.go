package fs

import (
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/thawfs/thaw/wss"
)

// A reply is the answer to one READ of memory. It is a fuse.ReadResult with Slices, the form that
// go-fuse writes to the kernel as it is and calls Done on afterwards: Done is the moment at which
// the reader goes on and the pages are unlocked.
type reply struct {
	srv          *Server
	m            *memoryFile
	sess         *session
	h            *openImage
	first, count uint64
	start        time.Time
	// cached: the pages will be in the page cache.
	cached bool
	// follow: what lies beside or ahead of the pages may be pushed after the answer.
	follow bool
	// late notes how long the READ took if it asked for pages that a restore should have brought
	// before; else nil.
	late *lateness
	// cluster is the one that a cold page was read from; else nil.
	cluster *cluster
	data    []byte
	vec     [1][]byte
}

var _ fuse.ReadResult = (*reply)(nil)

// replies are reused: a READ allocates nothing.
type replies struct{ pool sync.Pool }

func (p *replies) get() *reply {
	if r, ok := p.pool.Get().(*reply); ok {
		return r
	}
	return new(reply)
}

// Bytes implements fuse.ReadResult.
func (r *reply) Bytes([]byte) ([]byte, fuse.Status) { return r.data, fuse.OK }

// Size implements fuse.ReadResult.
func (r *reply) Size() int { return len(r.data) }

// Slices makes go-fuse write data without copying it, and call Done after the write.
func (r *reply) Slices() ([][]byte, fuse.Status) {
	r.vec[0] = r.data
	return r.vec[:], fuse.OK
}

// Done ends the READ: the kernel has its answer.
func (r *reply) Done() {
	defer r.srv.rescue("answering a READ", nil)
	follow := r.follow
	r.over()
	if follow {
		r.srv.pushers.follow(r)
	}
	r.release()
}

// landed notes that a READ will be answered at once: nobody need go round its pages any more.
func (r *reply) landed() {
	if r.cached {
		r.m.inflight.removeRange(r.first, r.count)
	}
}

// fail ends a READ that is answered with an error.
func (r *reply) fail() {
	r.landed()
	r.over()
	r.release()
}

// over does the book-keeping of a READ that has ended.
func (r *reply) over() {
	now := time.Now()
	r.stall(false, now)
	r.srv.demand.end()
	took := now.Sub(r.start)
	if r.late != nil {
		r.late.waited(took)
	}
	r.srv.metrics.reads.observe(took)
}

// stall notes in the logs that a reader begins or ends to wait.
func (r *reply) stall(begin bool, now time.Time) {
	for _, log := range [...]*wss.StallLog{r.sess.epoch.stalls, r.sess.stalls} {
		switch {
		case log == nil:
		case begin:
			log.BeginAt(now)
		default:
			log.EndAt(now)
		}
	}
}

// release makes the reply available for the next READ.
func (r *reply) release() {
	r.srv.clusters.give(r.cluster)
	pool := &r.srv.replies.pool
	*r = reply{}
	pool.Put(r)
}
