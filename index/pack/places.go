package pack

import "fmt"

// Places are the pages of a pack in the order in which they lie in its file: first those of the blocks,
// whose places are their slots, and then those of the clusters, cluster by cluster, from the number of
// slots on. The slot of a page that lies in a cluster is no place. Places belong to one generation.
// What is read by places is read at once, where it lies side by side.
//
// Groups are the runs of places that are read and used together: the blocks, then the clusters.
type Places struct{ d *directory }

// Places returns the places of a pack. They do not need it to be open.
func (r *Reader) Places() Places { return Places{r.dir} }

// Len is where the places end.
func (p Places) Len() int { return len(p.d.slots) + len(p.d.members) }

// Moved says whether any page lies elsewhere than its slot says.
func (p Places) Moved() bool { return len(p.d.members) > 0 }

// Of returns the place of a slot; the slot itself if that is dead or not there.
func (p Places) Of(slot uint32) uint32 {
	if int(slot) >= len(p.d.slots) || p.d.slots[slot].codec != codecClustered {
		return slot
	}
	e := p.d.slots[slot]
	return uint32(len(p.d.slots)) + p.d.clusters[e.off].first + uint32(e.len)
}

// Slot is the inverse of Of. It returns what is no place as it is.
func (p Places) Slot(place uint32) uint32 {
	if i := int(place) - len(p.d.slots); i >= 0 && i < len(p.d.members) {
		return p.d.members[i]
	}
	return place
}

// Groups is the number of groups.
func (p Places) Groups() int { return len(p.d.blocks) + len(p.d.clusters) }

// GroupOf returns the group of a place; ok is false if there is no such place.
func (p Places) GroupOf(place uint32) (group int, ok bool) {
	slots := uint32(len(p.d.slots))
	switch {
	case place < slots:
		return p.d.blockOf(place), true
	case int(place) < p.Len():
		return len(p.d.blocks) + p.d.clusterAt(place-slots), true
	}
	return 0, false
}

// Group returns the places of a group: first, first+1, ... first+count-1.
func (p Places) Group(group int) (first, count uint32) {
	if c := group - len(p.d.blocks); c >= 0 {
		it := p.d.clusters[c]
		return uint32(len(p.d.slots)) + it.first, uint32(it.pages)
	}
	first = p.d.blocks[group].first
	return first, p.d.blockEnd(group) - first
}

// Together says whether two places lie in one cluster, so that reading one of them reads both.
func (p Places) Together(a, b uint32) bool {
	if slots := uint32(len(p.d.slots)); min(a, b) < slots || int(max(a, b)) >= p.Len() {
		return false
	}
	a = p.d.members[a-uint32(len(p.d.slots))]
	b = p.d.members[b-uint32(len(p.d.slots))]
	return p.d.slots[a].off == p.d.slots[b].off
}

// ReadPlaces is ReadSlots by places: place first+i goes to dst[i*4096:], and bad names places. The slot of
// a page that lies in a cluster is no place, and reads as a dead one.
func (r *Reader) ReadPlaces(first uint32, dst []byte, bad *BadSlots) {
	r.readPlaces(r, first, dst, bad)
}

// FetchPlaces is Fetch by places. The span has the pages of these places, by whichever name they are read.
func (r *Reader) FetchPlaces(first uint32, count int, s *Span) error {
	s.reset(r)
	slots := uint64(len(r.dir.slots))
	end := uint64(first) + uint64(count)
	if uint64(first) < slots {
		if err := s.fetchBlocks(first, uint32(min(end, slots))); err != nil {
			return err
		}
	}
	from, stop := max(uint64(first), slots), min(end, uint64(r.Places().Len()))
	if from >= stop {
		return nil
	}
	return s.fetchClusters(r.dir.clusterAt(uint32(from-slots)), r.dir.clusterAt(uint32(stop-slots-1))+1)
}

// readPlaces is ReadPlaces out of what src has.
func (r *Reader) readPlaces(src stored, first uint32, dst []byte, bad *BadSlots) {
	dst = dst[:len(dst):len(dst)]
	slots := uint32(len(r.dir.slots))
	stop := first + uint32(len(dst)/PageSize)
	n := 0 // places before those of the clusters
	bad.reset(r)
	s := r.dec.get()
	defer r.dec.scratch.Put(s)
	if first < slots {
		n = int(min(stop, slots) - first)
		r.blockSlots(src, s, first, dst[:n*PageSize], bad, false)
	}
	for place := first + uint32(n); place < stop; {
		i := place - slots
		if int(i) >= len(r.dir.members) {
			bad.add(place, place+1, r.corrupt("place", fmt.Errorf("there are %d", r.Places().Len())))
			place++
			continue
		}
		c := r.dir.clusterAt(i)
		end := r.dir.clusters[c].first + uint32(r.dir.clusters[c].pages)
		count := min(end-i, stop-place)
		if err := r.clusterPart(src, s, c, i, dst[(place-first)*PageSize:][:count*PageSize]); err != nil {
			bad.add(place, place+count, err)
		}
		place += count
	}
	for _, place := range bad.slots {
		clear(dst[(place-first)*PageSize:][:PageSize])
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
