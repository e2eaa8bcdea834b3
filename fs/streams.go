package fs

import "sync"

// streams finds readers of one memory file that go through its pages in an order, several at a time,
// and says what to push ahead of them. The orders are those of openImage.orders: by number, by the
// working set, by the layout. Its lock is held for a few comparisons, by READs that were answered.
//
// What is pushed ahead of a stream is cut into rounds. A round has at most half as many pages as the
// reader has come through, so rounds grow with it, and a wrong guess costs a third of what was
// right. The first page of a round, the marker, is left out: everything behind it will be in the page
// cache, so its READ is how the server sees that the reader has come so far, and the next round is
// pushed while the reader goes through this one. So there are two rounds ahead of a reader at most.
//
// Pushers take a round part by part, each time from where the reader is then: what it has read
// meanwhile is not pushed behind it.
type streams struct {
	mu    sync.Mutex
	clock uint64
	of    *openImage // what the positions belong to; nil: nothing was read
	*found
}

// found is what the READs of one image were.
type found struct {
	table [maxOrders][maxStreams]stream
	local neighbourhood
}

type stream struct {
	id    uint64 // the clock when it began; 0: a free slot
	used  uint64 // the clock of its last READ
	reads uint64
	score uint64 // positions that the reader has come through
	next  uint64 // the position after the farthest READ
	ahead uint64 // the position after what pushers have taken; 0: nothing yet
	mark  uint64 // the marker of the last round
	limit uint64 // the end of the last round; 0: there was none
	pumps int    // pushers that take parts of it, or will
}

const (
	maxStreams = 8
	// maxOrders: by number, and those of the image.
	maxOrders = 3
	// minStream is in pages: 64 KiB of single-page faults in a row. A reader by number can be a chance.
	minStream = 16
	// minReads is how many READs make a stream of another order: positions are close together by
	// chance less often than numbers. By number it is how many single pages must have been asked for,
	// where others between them were there already.
	minReads = 4
	// maxBack is how many of these pages are looked at.
	maxBack = 512
	// slack is how many positions a reader may skip, or come back, and still be in the stream. Guests
	// do not use everything that they used before, nor in quite the same order.
	slack = 16
	// maxAhead is how long a round by number is at most, in pages: 512 KiB. maxRound is for the others.
	maxAhead = 128
	maxRound = 512
	// A part is a quarter of its round, with at least minPart pages, and at most maxPart, which take about
	// a millisecond.
	minPart = 16
	maxPart = 128
	// maxPumps is how many pushers work for one stream.
	maxPumps = 2
)

// A touch is where one READ lies in each order.
type touch struct {
	count uint64
	back  uint64 // how many pages right before it, by number, are in the page cache
	in    [maxOrders]bool
	pos   [maxOrders]uint64
}

// A pump names a stream that a pusher works for.
type pump struct {
	order, slot int
	id          uint64 // 0: none
}

// read notes a READ, and returns what should be pushed because of it: more of a stream (ahead), or
// the pages stored beside it (beside). p is where that belongs.
func (t *streams) read(h *openImage, at *touch, orders []Order) (p pump, ahead, beside bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of != h {
		// No stream has the number of one that is forgotten: the clock goes on.
		t.of, t.found = h, &found{local: neighbourhood{credit: firstCredit}}
	}
	t.clock++
	if at.count == 1 {
		t.local.read(at.pos[0])
	}
	var slots [maxOrders]int
	best := -1
	for i := range orders {
		// The image's orders first, and by number last: the others are read faster, or leave out zeros.
		o := (i + 1) % len(orders)
		slots[o] = t.match(o, at)
		if slots[o] < 0 {
			continue
		}
		st := &t.table[o][slots[o]]
		st.advance(at.pos[o], at.count, t.clock)
		if st.proved(o, at.count) && (best < 0 || o == 0 && st.better(&t.table[best][slots[best]])) {
			best = o
		}
	}
	if best >= 0 {
		t.local.used()
		st := &t.table[best][slots[best]]
		if !st.round(best, orders[best].Len()) || st.pumps > 0 {
			return p, false, false
		}
		st.pumps++
		return pump{best, slots[best], st.id}, true, false
	}
	for o := range orders {
		if at.in[o] && slots[o] < 0 {
			slots[o] = t.begin(o, at)
		}
	}
	return t.beside(h, at, orders, slots)
}

// beside decides about the locality block of a page that no stream was found for.
func (t *streams) beside(h *openImage, at *touch, orders []Order, slots [maxOrders]int) (
	p pump, ahead, beside bool,
) {
	if !h.local || at.count > 1 {
		return p, false, false
	}
	layout := len(orders) - 1
	if layout == 0 || !at.in[layout] {
		return p, false, !t.local.off // a zero page, or the orders are not known yet
	}
	st := &t.table[layout][slots[layout]]
	if at.pos[layout] < st.ahead || st.pumps == maxPumps {
		return p, false, false // it is part of what is pushed
	}
	if !t.local.pays(at.pos[layout]) {
		return p, false, false
	}
	st.pumps++
	return pump{layout, slots[layout], st.id}, false, true
}

// match finds the stream of an order that a READ continues; negative if there is none.
func (t *streams) match(o int, at *touch) int {
	if !at.in[o] {
		return -1
	}
	pos, back := at.pos[o], uint64(0)
	if o == 0 {
		// The reader has come through pages that clusters of others brought.
		back = min(at.back, pos)
	}
	for i := range t.table[o] {
		st := &t.table[o][i]
		if st.id == 0 {
			continue
		}
		low, high := st.next, max(st.next, st.ahead)
		if o > 0 {
			low, high = low-min(low, slack), high+slack
		}
		if pos >= low && pos-back <= high {
			return i
		}
	}
	return -1
}

// begin makes a stream of a READ, in the place of the one that was not continued for longest.
func (t *streams) begin(o int, at *touch) (slot int) {
	for i := range t.table[o] {
		if t.table[o][i].used < t.table[o][slot].used {
			slot = i
		}
	}
	next := at.pos[o] + at.count
	t.table[o][slot] = stream{
		id: t.clock, used: t.clock, reads: 1, score: at.count, next: next,
	}
	return slot
}

// advance moves a stream on to a READ that continued it.
func (st *stream) advance(pos, count, clock uint64) {
	st.used = clock
	st.reads++
	if end := pos + count; end > st.next {
		st.score += end - st.next
		st.next = end
	}
}

// proved says whether a reader, which has asked for so many pages now, has come far enough in an order to be
// taken for a stream.
func (st *stream) proved(o int, count uint64) bool {
	if o == 0 {
		return st.score >= minStream && (st.reads >= minReads || count > 1)
	}
	return st.reads >= minReads
}

// better says whether a stream by number is the better one of two that a READ continues: only it has
// something pushed ahead of it, or it is longer.
func (st *stream) better(than *stream) bool {
	if running := st.limit > st.next; running != (than.limit > than.next) {
		return running
	}
	return st.score > than.score
}

// round begins the next round if the reader has come to the marker of the last.
func (st *stream) round(o int, end uint64) bool {
	if st.limit > 0 && st.next <= st.mark {
		return false
	}
	most := uint64(maxRound)
	if o == 0 {
		most = maxAhead
	}
	from := max(st.next, st.ahead, st.limit)
	to := min(from+min(max(st.score/2, 2), most), end)
	if from+1 >= to {
		return false
	}
	st.mark, st.limit = from, to
	return true
}

// A part is positions to push: those from first on, below end, without the marker.
type part struct{ first, end, mark uint64 }

// take gives a pusher the next part of its stream. ok is false if there is none: then the pusher has left
// the stream. more says that another pusher should join.
func (t *streams) take(h *openImage, p pump, orders []Order) (x part, more, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.at(h, p)
	if st == nil {
		return x, false, false
	}
	from := max(st.ahead, st.next)
	if from >= st.limit {
		st.pumps--
		return x, false, false
	}
	size := min(max((st.limit-st.mark)/4, minPart), maxPart)
	end := orders[p.order].Part(from, min(size, st.limit-from))
	st.ahead = end
	if more = end < st.limit && st.pumps < maxPumps; more {
		st.pumps++
	}
	return part{from, end, st.mark}, more, true
}

// leave ends the work of a pusher for a stream before there was nothing left to take.
func (t *streams) leave(h *openImage, p pump) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if st := t.at(h, p); st != nil {
		st.pumps--
	}
}

// reach notes that everything before a position is pushed for a stream, as a block; false if it was
// already.
func (t *streams) reach(h *openImage, p pump, end uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.at(h, p)
	if st == nil {
		return true
	}
	more := end > st.ahead
	st.ahead = max(st.ahead, end)
	return more
}

// block says whether to push a locality block, since many may have been asked for before it, and notes
// that it is pushed: without the probe, which is one of some pages or none. gfns are those of the block
// that were not asked for, at least one.
func (t *streams) block(h *openImage, gfns []uint64) (probe uint64, pays bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of != h || t.found == nil || t.local.off {
		return none, false
	}
	gain := t.local.spend()
	if gain == 0 {
		return none, true
	}
	probe = gfns[t.clock%uint64(len(gfns))]
	t.local.probe(probe, gain)
	return probe, true
}

// at finds the stream of a pump; nil if it is forgotten.
func (t *streams) at(h *openImage, p pump) *stream {
	if t.of != h || t.found == nil || p.id == 0 || t.table[p.order][p.slot].id != p.id {
		return nil
	}
	return &t.table[p.order][p.slot]
}

// reset forgets all readers, and frees what was known of them.
func (t *streams) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of, t.found = nil, nil
}
