package fs

import (
	"errors"
	"slices"
	"time"
)

// errStale ends a push into a page cache that was dropped or must not be filled any more.
var errStale = errors.New("the page cache was dropped")

// errAgain refuses a push if a READ of some of its pages came in, or they were discarded, after it was
// decided.
var errAgain = errors.New("some of the pages are not wanted any more")

// A job is something to push beside or ahead of a READ that was answered.
type job struct {
	m    *memoryFile
	sess *session
	do   work
	page uint64 // that was read
	// of is the stream that it is for, of an image that was open then; id 0: none.
	of    pump
	image *openImage
	// cluster is what the page was read from, if it is cold; else nil. It is given back with the job.
	cluster *cluster
}

// work is what a job does.
type work int

const (
	workAhead  work = iota // push what a stream wants
	workBeside             // push the locality block of a page first, unless it has a cluster
	workOrders             // find out in which orders a guest may touch the image
)

// pushers push in the background. READs hand them jobs without waiting: where there is no room for more, the
// job is dropped, and the pages are read on demand.
type pushers struct {
	srv   *Server
	queue *jobs
}

// A scratch is the memory that a pusher works in.
type scratch struct {
	piece Piece
	gfns  []uint64
	cold  []uint64
}

// follow queues what should follow a READ.
func (p *pushers) follow(r *reply) {
	j := job{m: r.m, sess: r.sess, page: r.first, image: r.h}
	orders := *r.h.orders.Load()
	at := touch{count: r.count, back: r.sess.back(r.first)}
	for i, o := range orders {
		if i == 0 || r.count == 1 {
			at.pos[i], at.in[i] = o.Position(r.first)
		}
	}
	j.cluster, r.cluster = r.cluster, nil
	var ahead, beside bool
	j.of, ahead, beside = r.m.streams.read(r.h, &at, orders)
	if beside {
		j.do = workBeside
	}
	if ahead || beside || j.cluster != nil {
		p.add(j)
	}
	if !r.h.asked.Load() && r.h.asked.CompareAndSwap(false, true) {
		p.add(job{m: r.m, sess: r.sess, do: workOrders, image: r.h})
	}
}

// add queues a job. If there is no room, it is as if it was done and had pushed nothing.
func (p *pushers) add(j job) {
	if !p.queue.add(j) {
		p.srv.metrics.dropped.Add(1)
		p.ended(j)
		p.srv.clusters.give(j.cluster)
	}
}

// ended does the book-keeping of a job that did not come to its end.
func (p *pushers) ended(j job) {
	if j.do == workOrders {
		j.image.asked.Store(false) // the next READ asks again
	}
	j.m.streams.leave(j.image, j.of)
}

// run is the loop of one pusher.
func (p *pushers) run() {
	var sc scratch
	for {
		select {
		case <-p.srv.ctx.Done():
			return
		case <-p.queue.ready:
			p.do(p.queue.take(), &sc)
		}
	}
}

// do does one job. Errors end the job only: a page that cannot be read gets its EIO when it is asked
// for.
func (p *pushers) do(j job, sc *scratch) {
	defer p.srv.clusters.give(j.cluster)
	h := p.srv.hold(j.m)
	if h == nil {
		p.ended(j)
		return
	}
	defer p.srv.unhold(j.m, h)
	whole := false
	defer func() {
		if !whole {
			p.ended(j)
		}
	}()
	err := errStale // the job is for an image that was replaced
	if h == j.image {
		whole, err = p.bring(j, h, sc)
	}
	if err != nil && !errors.Is(err, errStale) {
		p.srv.metrics.pushErrors.Add(1)
		p.srv.log.Debug("push", "checkpoint", j.m.e.name, "page", j.page, "err", err)
	}
}

// bring does a job; whole is false if it was ended early.
func (p *pushers) bring(j job, h *openImage, sc *scratch) (whole bool, err error) {
	defer p.srv.rescueErr("pushing in the background", &err)
	switch {
	case j.cluster != nil:
		if err := p.cluster(j, h, sc); err != nil {
			return false, err
		}
		j.cluster = nil
	case j.do == workOrders:
		whole = true // also if it panics: it would again, with each READ
		orders := append(*h.orders.Load(), h.mem.Orders()...)
		h.orders.Store(&orders)
		return true, nil
	case j.do == workBeside:
		if err := p.neighbours(j, h, sc); err != nil {
			return false, err
		}
	}
	if j.of.id == 0 {
		return true, nil
	}
	return p.ahead(j, h, sc)
}

// neighbours pushes the locality block of a page.
func (p *pushers) neighbours(j job, h *openImage, sc *scratch) error {
	if h.mem.Zero(j.page) {
		return p.zeroGroup(j, h, sc)
	}
	sc.gfns = h.mem.Neighbours(j.page, sc.gfns[:0])
	if !p.reach(j, h, sc.gfns) {
		return nil
	}
	sc.gfns = slices.DeleteFunc(sc.gfns, func(gfn uint64) bool { return !j.m.wants(j.sess, gfn) })
	if len(sc.gfns) == 0 {
		return nil
	}
	probe, pays := j.m.streams.block(h, sc.gfns)
	if !pays {
		return nil
	}
	err := h.mem.ReadNeighbours(j.page, &sc.piece)
	if err != nil && lostPages(err) == nil {
		return err
	}
	return errors.Join(err, p.pushWithout(j, &sc.piece, probe))
}

// cluster pushes the other pages of the cluster that a page was read from. Decoding them has been paid for,
// so they are pushed whatever the layout, and whether or not blocks pay.
func (p *pushers) cluster(j job, h *openImage, sc *scratch) error {
	sc.gfns = h.mem.Neighbours(j.page, sc.gfns[:0])
	if j.do == workBeside {
		p.reach(j, h, sc.gfns)
	}
	if !slices.ContainsFunc(sc.gfns, func(gfn uint64) bool { return j.m.wants(j.sess, gfn) }) {
		return nil
	}
	h.mem.ClusterPages(&j.cluster.Cluster, &sc.piece)
	return p.push(j, &sc.piece)
}

// reach tells the stream of a page how far its block goes; false if that far was pushed before.
func (p *pushers) reach(j job, h *openImage, block []uint64) bool {
	if j.of.id == 0 {
		return true
	}
	end := uint64(0)
	for _, gfn := range block {
		if pos, ok := (*h.orders.Load())[j.of.order].Position(gfn); ok {
			end = max(end, pos+1)
		}
	}
	return j.m.streams.reach(h, j.of, end)
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
	first := j.page / group * group
	sc.gfns = sc.gfns[:0]
	for gfn := first; gfn < min(first+group, j.m.pages); gfn++ {
		if h.mem.Zero(gfn) && j.m.wants(j.sess, gfn) {
			sc.gfns = append(sc.gfns, gfn)
		}
	}
	return p.push(j, &Piece{GFNs: sc.gfns, Pages: p.srv.zeros.bytes(len(sc.gfns))})
}

// none is no page.
const none = ^uint64(0)

// pushWithout pushes all pages of a piece but one.
func (p *pushers) pushWithout(j job, piece *Piece, page uint64) error {
	i := slices.Index(piece.GFNs, page)
	if i < 0 {
		return p.push(j, piece)
	}
	before := Piece{GFNs: piece.GFNs[:i], Pages: piece.Pages[:i*PageSize]}
	if err := p.push(j, &before); err != nil {
		return err
	}
	return p.push(j, &Piece{GFNs: piece.GFNs[i+1:], Pages: piece.Pages[(i+1)*PageSize:]})
}

// push pushes and counts.
func (p *pushers) push(j job, piece *Piece) error {
	now := time.Now()
	if j.sess.epoch.exclusive(now) || j.sess.watch.Load().on() {
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
