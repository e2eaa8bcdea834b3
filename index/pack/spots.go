package pack

import "fmt"

// Spots are the pages of a pack in the order in which they lie in its file: first those of the blocks,
// whose spots are their slots, and then those of the clusters, cluster by cluster, from the number of
// slots on. The slot of a page that lies in a cluster is no spot. Spots belong to one generation.
// What is read by spots is read at once, where it lies side by side.
//
// Groups are the runs of spots that are read and used together: the blocks, then the clusters.
type Spots struct{ d *directory }

// Spots returns the spots of a pack. They do not need it to be open.
func (r *Reader) Spots() Spots { return Spots{r.dir} }

// Len is where the spots end.
func (p Spots) Len() int { return len(p.d.slots) + len(p.d.members) }

// Moved says whether any page lies elsewhere than its slot says.
func (p Spots) Moved() bool { return p.d != nil && len(p.d.members) > 0 }

// Of returns the spot of a slot; the slot itself if that is dead. A slot that is not there is at a spot from
// Len on, which is not there, either: never at that of another page.
func (p Spots) Of(slot uint32) uint32 {
	switch {
	case p.d == nil:
		return slot
	case int(slot) >= len(p.d.slots):
		return slot + uint32(len(p.d.members))
	case p.d.slots[slot].codec != codecClustered:
		return slot
	}
	e := p.d.slots[slot]
	return uint32(len(p.d.slots)) + p.d.clusters[e.off].first + uint32(e.len)
}

// Slot is the inverse of Of. A spot in a block whose page lies in a cluster is as its slot.
func (p Spots) Slot(spot uint32) uint32 {
	switch {
	case p.d == nil || int(spot) < len(p.d.slots):
		return spot
	case int(spot) < p.Len():
		return p.d.members[int(spot)-len(p.d.slots)]
	}
	return spot - uint32(len(p.d.members))
}

// Groups is the number of groups.
func (p Spots) Groups() int { return len(p.d.blocks) + len(p.d.clusters) }

// GroupOf returns the group of a spot; ok is false if there is no such spot.
func (p Spots) GroupOf(spot uint32) (group int, ok bool) {
	if p.d == nil {
		return 0, false
	}
	slots := uint32(len(p.d.slots))
	switch {
	case spot < slots:
		return p.d.blockOf(spot), true
	case int(spot) < p.Len():
		return len(p.d.blocks) + p.d.clusterAt(spot-slots), true
	}
	return 0, false
}

// Group returns the spots of a group: first, first+1, ... first+count-1.
func (p Spots) Group(group int) (first, count uint32) {
	if c := group - len(p.d.blocks); c >= 0 {
		it := p.d.clusters[c]
		return uint32(len(p.d.slots)) + it.first, uint32(it.pages)
	}
	first = p.d.blocks[group].first
	return first, p.d.blockEnd(group) - first
}

// ClusterAt returns the spots of the cluster that a spot lies in: first, first+1, ... first+count-1. ok is
// false for a spot of a block, and for none.
func (p Spots) ClusterAt(spot uint32) (first, count uint32, ok bool) {
	if p.d == nil || int(spot) < len(p.d.slots) || int(spot) >= p.Len() {
		return 0, 0, false
	}
	slots := uint32(len(p.d.slots))
	e := p.d.slots[p.d.members[spot-slots]]
	it := p.d.clusters[e.off]
	return slots + it.first, uint32(it.pages), true
}

// Bytes is the number of bytes that a group takes in the file.
func (p Spots) Bytes(group int) int {
	if c := group - len(p.d.blocks); c >= 0 {
		return int(p.d.clusters[c].stored)
	}
	return int(p.d.blocks[group].end - p.d.blocks[group].off)
}

// Together says whether two spots lie in one cluster, so that reading one of them reads both.
func (p Spots) Together(a, b uint32) bool {
	if !p.Moved() || min(a, b) < uint32(len(p.d.slots)) || int(max(a, b)) >= p.Len() {
		return false
	}
	a = p.d.members[a-uint32(len(p.d.slots))]
	b = p.d.members[b-uint32(len(p.d.slots))]
	return p.d.slots[a].off == p.d.slots[b].off
}

// ReadSpots is ReadSlots by spots: spot first+i goes to dst[i*4096:], and bad names spots. The slot of
// a page that lies in a cluster is no spot, and reads as a dead one.
func (r *Reader) ReadSpots(first uint32, dst []byte, bad *BadSlots) {
	r.readSpots(r, first, dst, bad)
}

// FetchSpots is Fetch by spots. The span has the pages of these spots, by whichever name they are read.
func (r *Reader) FetchSpots(first uint32, count int, s *Span) error {
	s.reset(r)
	slots := uint64(len(r.dir.slots))
	end := uint64(first) + uint64(count)
	if uint64(first) < slots {
		if err := s.fetchBlocks(first, uint32(min(end, slots))); err != nil {
			return err
		}
	}
	from, stop := max(uint64(first), slots), min(end, uint64(r.Spots().Len()))
	if from >= stop {
		return nil
	}
	return s.fetchClusters(r.dir.clusterAt(uint32(from-slots)), r.dir.clusterAt(uint32(stop-slots-1))+1)
}

// readSpots is ReadSpots out of what src has.
func (r *Reader) readSpots(src stored, first uint32, dst []byte, bad *BadSlots) {
	dst = dst[:len(dst):len(dst)]
	slots := uint32(len(r.dir.slots))
	stop := first + uint32(len(dst)/PageSize)
	n := 0 // spots before those of the clusters
	bad.reset(r)
	s := r.dec.get()
	defer r.dec.scratch.Put(s)
	if first < slots {
		n = int(min(stop, slots) - first)
		r.blockSlots(src, s, first, dst[:n*PageSize], bad, false)
	}
	for spot := first + uint32(n); spot < stop; {
		i := spot - slots
		if int(i) >= len(r.dir.members) {
			bad.add(spot, spot+1, r.slotError(r.Spots().Slot(spot), fmt.Errorf("there are %d", slots)))
			spot++
			continue
		}
		c := r.dir.clusterAt(i)
		end := r.dir.clusters[c].first + uint32(r.dir.clusters[c].pages)
		count := min(end-i, stop-spot)
		if err := r.clusterPart(src, s, c, i, dst[(spot-first)*PageSize:][:count*PageSize]); err != nil {
			bad.add(spot, spot+count, err)
		}
		spot += count
	}
	for _, spot := range bad.slots {
		clear(dst[(spot-first)*PageSize:][:PageSize])
	}
}

// clusterPart reads a cluster and gives its pages from members[i] on, as many as dst has room for.
func (r *Reader) clusterPart(src stored, s *decoderScratch, c int, i uint32, dst []byte) error {
	it := r.dir.clusters[c]
	if len(dst) == int(it.pages)*PageSize {
		return r.cluster(src, s, c, dst)
	}
	pages := s.room(int(it.pages))
	if err := r.cluster(src, s, c, pages); err != nil {
		return err
	}
	copy(dst, pages[(i-it.first)*PageSize:])
	return nil
}

// EachPage calls fn for every page that is not dead, as its blocks and clusters lie: with the page, which is
// valid until fn returns, or with the error of reading it. An error of fn ends it.
func (r *Reader) EachPage(fn func(slot uint32, page []byte, err error) error) error {
	spots := r.Spots()
	var pages []byte
	var bad BadSlots
	for g := range spots.Groups() {
		first, count := spots.Group(g)
		pages = grown(pages, int(count)*PageSize)
		r.ReadSpots(first, pages, &bad)
		for spot := first; spot < first+count; spot++ {
			slot := spots.Slot(spot)
			if r.Dead(slot) || spots.Of(slot) != spot {
				continue
			}
			if err := fn(slot, pages[(spot-first)*PageSize:][:PageSize], bad.Err(spot)); err != nil {
				return err
			}
		}
	}
	return nil
}
