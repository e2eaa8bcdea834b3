package fs

import (
	"math"
	"time"
)

// A playout decides when a machine may begin to run while its working set is still on the way, as a player
// begins when it has buffered enough: at the earliest moment from which on each piece comes before it is
// wanted, by the rate measured so far, its spread, and a margin. It has no clock and no lock: times are
// given to it, counted from the beginning of the restore.
type playout struct {
	margin float64
	pace   pace
	// pieces are nil until the schedule is known; done are those that were brought.
	pieces []due
	timed  bool
	done   []bool
	groups []group
	width  int // pieces of a group

	landed bool
	head   time.Duration // from the beginning to the landing
	tail   uint64        // pages that were missing then
	// planned is the least time between the expected arrival of a piece of the tail and the moment at
	// which it is wanted; real is the same of those that have arrived. never: there was none.
	planned, real time.Duration
	// room is the largest margin with which all pieces of the tail that have arrived came in time.
	room float64
}

// untimedHead is the share of a set without times that is brought before the machine runs, with
// startMargin. Such sets are ordered by recency and density, and of the pages with access bits a half
// is used after a restore (37 to 85 % in VEE'11): these are looked for in the front half. The open then
// waits half as long as for the whole, at most.
const untimedHead = 0.5

func newPlayout(pieces int, margin float64, first pace) *playout {
	return &playout{margin: margin, pace: first, done: make([]bool, pieces),
		planned: never, real: never, room: math.Inf(1)}
}

// A group is neighbouring pieces that are looked at together: one, unless the set is so long that to look at
// each piece whenever one arrives would take longer than bringing them.
type group struct {
	at             time.Duration // the earliest at which one of them is wanted
	pages, missing int           // of the pieces that are missing, and their number
}

// maxGroups is a set of 1 GiB by the piece. In one of 64 GiB a group has 64 MiB: the machine begins to run
// so much later at most.
const maxGroups = 1024

// plan tells when the pieces are wanted.
func (p *playout) plan(s *schedule, margin float64) {
	p.pieces, p.timed, p.margin = s.pieces, s.timed, margin
	if !s.timed {
		p.pieces = s.frontFirst(margin)
	}
	p.width = max((len(p.pieces)+maxGroups-1)/maxGroups, 1)
	p.groups = make([]group, (len(p.pieces)+p.width-1)/p.width)
	for i := range p.groups {
		p.groups[i].at = never
	}
	for i, d := range p.pieces {
		g := &p.groups[i/p.width]
		if g.at = min(g.at, d.at); !p.done[i] {
			g.pages, g.missing = g.pages+d.pages, g.missing+1
		}
	}
	if p.landed { // by a cap, before the schedule was known
		p.land(p.head)
	}
}

// frontFirst is a schedule without times as one that wants the front at once and the rest at any time.
func (s *schedule) frontFirst(margin float64) []due {
	pieces := make([]due, len(s.pieces))
	all, before := 0, 0
	for _, d := range s.pieces {
		all += d.pages
	}
	head := float64(all) * untimedHead * (1 + margin) / (1 + startMargin)
	for i, d := range s.pieces {
		if pieces[i] = d; float64(before) < head {
			pieces[i].at = 0
		}
		before += d.pages
	}
	return pieces
}

// brought notes that a piece has arrived.
func (p *playout) brought(i, pages int, now time.Duration) {
	if p.pieces != nil && !p.done[i] {
		g := &p.groups[i/p.width]
		g.pages, g.missing = g.pages-p.pieces[i].pages, g.missing-1
	}
	p.done[i] = true
	p.pace.brought(pages, now)
	if !p.landed || p.pieces == nil || p.pieces[i].at == never {
		return
	}
	after := now - p.head
	p.real = min(p.real, p.pieces[i].at-after)
	if after > 0 {
		p.room = min(p.room, float64(p.pieces[i].at)/float64(after)-1)
	}
}

// safe says whether all pieces that are missing will come in time if the machine runs from this moment
// on. It can only change when a piece arrives or the schedule is known.
func (p *playout) safe() bool {
	if p.pieces == nil {
		return false
	}
	cost, spread := p.pace.cost()
	return p.inTime(cost, spread, 0)
}

// inTime says whether all pieces that are missing come in time if a page takes cost, with so much spread, and
// the machine has run for some time.
func (p *playout) inTime(cost, spread float64, run time.Duration) bool {
	var pages, count float64
	for _, g := range p.groups {
		if g.missing == 0 {
			continue
		}
		pages, count = pages+float64(g.pages), count+float64(g.missing)
		if g.at != never && pages*(cost+2*spread/math.Sqrt(count))*(1+p.margin) > float64(g.at-run) {
			return false
		}
	}
	return true
}

// hurry says whether a piece that is missing will not come in time if a page takes as long as in the
// newest pieces, and cost at least. Without times, or a rate, that is not known: true.
func (p *playout) hurry(now time.Duration, cost float64) bool {
	own, spread := p.pace.cost()
	return !p.landed || !p.timed || cost == 0 || !p.inTime(max(cost, own), spread, now-p.head)
}

// land notes that the machine runs from now on.
func (p *playout) land(now time.Duration) {
	p.landed, p.head = true, now
	cost, _ := p.pace.cost()
	for i, d := range p.pieces {
		if p.done[i] {
			continue
		}
		p.tail += uint64(d.pages)
		if arrival := float64(p.tail) * cost; p.timed && d.at != never && arrival < float64(never) {
			p.planned = min(p.planned, d.at-time.Duration(arrival))
		}
	}
}

// result is what the restore shows about its plan, once all of it has come; late are the pages of the
// tail that were read on demand before.
func (p *playout) result(late uint64) result {
	switch {
	case !p.landed || p.tail == 0:
		return unknown
	case late > p.tail/lateShare || p.room < 0:
		return missed
	case late == 0 && p.room > spareRoom*p.margin && p.timed:
		return spare
	case late == 0 && !p.timed:
		return spare
	}
	return met
}

// A pace is how fast pieces arrive. The first of them also waited for the restore to get going: for files to
// be opened, a disk to wake up, goroutines to begin. That does not come again. So the pieces that were under
// way from the beginning do not count any more when so many others have come.
type pace struct {
	prior  float64 // nanoseconds a page, from earlier restores; 0: not known
	atOnce int     // pieces that are under way at once, at most; 0: not known, and all of them count
	begun  arrival // of so many
	newest arrival
	recent [recentPieces]arrival
	pieces int
}

// arrival is sums over the pieces until a moment.
type arrival struct {
	pages   float64
	squares float64 // of time²/pages of each piece
	at      time.Duration
}

const (
	// recentPieces is the number of the newest pieces whose pace counts if they come more slowly
	// than all did.
	recentPieces = 8
	// priorPages is how many pages of this restore weigh as much as those before: one piece. The first
	// pieces take longer than the others, because nothing is overlapped yet.
	priorPages = 256
)

func (c *pace) brought(pages int, now time.Duration) {
	n := float64(pages)
	if n == 0 {
		return
	}
	took := float64(now - c.newest.at)
	c.newest = arrival{c.newest.pages + n, c.newest.squares + took*took/n, now}
	c.recent[c.pieces%recentPieces] = c.newest
	if c.pieces++; c.pieces == c.atOnce {
		c.begun = c.newest
	}
}

// cost is the time that a page takes, in nanoseconds, and its standard deviation over the pieces.
func (c *pace) cost() (mean, spread float64) {
	if c.pieces < 2*c.atOnce {
		return c.since(arrival{})
	}
	return c.since(c.begun)
}

// whole is the time that a page takes with all that comes before the first one.
func (c *pace) whole() (mean float64) {
	mean, _ = c.since(arrival{})
	return mean
}

// since is cost, of the pieces that came after others.
func (c *pace) since(begun arrival) (mean, spread float64) {
	if c.pieces == 0 {
		if c.prior == 0 {
			return math.Inf(1), 0
		}
		return c.prior, 0
	}
	pages, took := c.newest.pages-begun.pages, float64(c.newest.at-begun.at)
	own := took / pages
	mean = own
	if c.prior > 0 {
		mean = (took + priorPages*c.prior) / (pages + priorPages)
	}
	if c.pieces >= recentPieces {
		old := c.recent[c.pieces%recentPieces]
		mean = max(mean, float64(c.newest.at-old.at)/(c.newest.pages-old.pages))
	}
	return mean, math.Sqrt(max((c.newest.squares-begun.squares)/pages-own*own, 0))
}

// rate is in bytes a second; 0: not known.
func (c *pace) rate() float64 {
	if c.newest.at == 0 {
		return 0
	}
	return c.newest.pages * PageSize / c.newest.at.Seconds()
}
