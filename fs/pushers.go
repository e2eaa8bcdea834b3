package fs

import (
	"errors"
	"time"
)

// errStale ends a push into a page cache that was dropped or must not be filled any more.
var errStale = errors.New("the page cache was dropped")

// errHole refuses a push if some of its pages were discarded after it was decided.
var errHole = errors.New("some of the pages were discarded")

// A job is something to push beside or ahead of a READ that was answered.
type job struct {
	m    *memoryFile
	sess *session
	// Pages from first on, count of them; count 0: the locality block of page first.
	first, count uint64
}

// pushers push in the background. READs hand them jobs without waiting: when the queue is full, the
// job is dropped, and the pages are read on demand.
type pushers struct {
	srv   *Server
	queue chan job
}

// queueLen is enough for the faults of a burst, and short enough that a push is still useful.
const queueLen = 512

// A scratch is the memory that a pusher works in.
type scratch struct {
	piece Piece
	gfns  []uint64
}

// follow queues the pages that should follow a READ.
func (p *pushers) follow(r *reply) {
	if r.h.local && r.count == 1 {
		p.add(job{m: r.m, sess: r.sess, first: r.first})
	}
	if from, n := r.m.streams.read(r.first, r.count, r.m.pages); n > 0 {
		p.add(job{m: r.m, sess: r.sess, first: from, count: n})
	}
}

func (p *pushers) add(j job) {
	select {
	case p.queue <- j:
	default:
		p.srv.metrics.dropped.Add(1)
	}
}

// run is the loop of one pusher.
func (p *pushers) run() {
	var sc scratch
	for {
		select {
		case <-p.srv.ctx.Done():
			return
		case j := <-p.queue:
			p.do(j, &sc)
		}
	}
}

// do pushes for one job. Errors end the job only: a page that cannot be read gets its EIO when it
// is asked for.
func (p *pushers) do(j job, sc *scratch) {
	h := j.m.hold()
	if h == nil {
		return
	}
	defer p.srv.unhold(j.m, h)
	err := p.bring(j, h, sc)
	if err != nil && !errors.Is(err, errStale) {
		p.srv.metrics.pushErrors.Add(1)
		p.srv.log.Debug("push", "checkpoint", j.m.e.name, "page", j.first, "error", err)
	}
}

// bring reads and pushes the pages of a job.
func (p *pushers) bring(j job, h *openImage, sc *scratch) (err error) {
	defer p.srv.rescueErr("pushing in the background", &err)
	if j.count > 0 {
		return p.ahead(j, h, sc)
	}
	return p.neighbours(j, h, sc)
}

// neighbours pushes the locality block of a page.
func (p *pushers) neighbours(j job, h *openImage, sc *scratch) error {
	if h.mem.Zero(j.first) {
		return p.zeroGroup(j, h, sc)
	}
	sc.gfns = h.mem.Neighbours(j.first, sc.gfns[:0])
	wanted := false
	for _, gfn := range sc.gfns {
		wanted = wanted || j.m.wants(j.sess, gfn)
	}
	if !wanted {
		return nil
	}
	err := h.mem.ReadNeighbours(j.first, &sc.piece)
	if err != nil && lostPages(err) == nil {
		return err
	}
	return errors.Join(err, p.push(j, &sc.piece))
}

// lostPages says that err names pages which could not be read, and that all others were; else nil.
func lostPages(err error) *PagesError {
	var lost *PagesError
	if errors.As(err, &lost) {
		return lost
	}
	return nil
}

// zeroGroup is the locality block of a zero page: the zero pages of its 16 aligned neighbours.
func (p *pushers) zeroGroup(j job, h *openImage, sc *scratch) error {
	const group = 16
	first := j.first / group * group
	sc.gfns = sc.gfns[:0]
	for gfn := first; gfn < min(first+group, j.m.pages); gfn++ {
		if h.mem.Zero(gfn) && j.m.wants(j.sess, gfn) {
			sc.gfns = append(sc.gfns, gfn)
		}
	}
	return p.push(j, &Piece{GFNs: sc.gfns, Pages: p.srv.zeros.bytes(len(sc.gfns))})
}

// ahead pushes a run of pages ahead of a reader, 16 at a time: the first are wanted soon.
func (p *pushers) ahead(j job, h *openImage, sc *scratch) error {
	const step = 16
	for first, end := j.first, j.first+j.count; first < end; first += step {
		n := min(step, end-first)
		if !p.anyWanted(j, first, n) {
			continue
		}
		sc.gfns = sc.gfns[:0]
		for gfn := first; gfn < first+n; gfn++ {
			sc.gfns = append(sc.gfns, gfn)
		}
		pages := grow(&sc.piece.Pages, int(n)*PageSize)
		if err := h.mem.ReadRange(first, pages); err != nil {
			return err // also if only some of them cannot be read: a READ of the others brings them
		}
		if err := p.push(j, &Piece{GFNs: sc.gfns, Pages: pages}); err != nil {
			return err
		}
	}
	return nil
}

func (p *pushers) anyWanted(j job, first, n uint64) bool {
	for gfn := first; gfn < first+n; gfn++ {
		if j.m.wants(j.sess, gfn) {
			return true
		}
	}
	return false
}

// push pushes and counts.
func (p *pushers) push(j job, piece *Piece) error {
	now := time.Now()
	if j.sess.epoch.exclusive(now) {
		return errStale
	}
	j.sess.epoch.spoil(now)
	return p.srv.push(j.m, j.sess, piece, func(_, n uint64) { j.sess.pushed.Add(n) })
}

// grow makes a buffer of n bytes of *b, which keeps it for the next time.
func grow(b *[]byte, n int) []byte {
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	return (*b)[:n]
}
