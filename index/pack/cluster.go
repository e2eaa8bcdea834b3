package pack

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// MaxClusterPages bounds a cluster: reading one page of it decodes all.
const MaxClusterPages = 64

// minCluster is the fewest bytes that a cluster takes in a directory.
const minCluster = 5

// clusterEntry is one cluster: pages of any blocks that are compressed together.
type clusterEntry struct {
	off    uint32
	stored uint32 // checksum included
	first  uint32 // of its slots in directory.members
	pages  uint16
	codec  codec // codecRaw or codecFrame
}

// nowhere is the entry of a clustered page until its cluster is known.
var nowhere = slotEntry{len: 1<<16 - 1, codec: codecClustered}

// slotsOf returns the slots in a cluster, ascending.
func (d *directory) slotsOf(c int) []uint32 {
	it := d.clusters[c]
	end := it.first + uint32(it.pages)
	return d.members[it.first:end:end]
}

// clusterAt returns the cluster that has members[i].
func (d *directory) clusterAt(i uint32) int {
	return sort.Search(len(d.clusters), func(c int) bool { return d.clusters[c].first > i }) - 1
}

// appendClusters writes the clusters as they stand in the directory.
func (d *directory) appendClusters(b []byte) []byte {
	end, last := uint32(headerSize), int64(0)
	for i, it := range d.clusters {
		b = append(b, byte(it.codec))
		b = binary.AppendUvarint(b, uint64(it.pages))
		b = binary.AppendUvarint(b, uint64(it.stored))
		b = binary.AppendUvarint(b, uint64(it.off-end))
		end = it.off + it.stored
		for j, slot := range d.slotsOf(i) {
			if j == 0 {
				b = binary.AppendVarint(b, int64(slot)-last)
			} else {
				b = binary.AppendUvarint(b, uint64(int64(slot)-last-1))
			}
			last = int64(slot)
		}
	}
	return b
}

// clusters reads n clusters, and tells the slots in them where they lie. Each clustered slot must be in
// one of them, and in no other place.
func (r *dirReader) clusters(d *directory, n int) {
	left := 0
	for _, e := range d.slots {
		if e.codec == codecClustered {
			left++
		}
	}
	if r.err != nil || left == 0 && n == 0 {
		return
	}
	d.clusters = make([]clusterEntry, 0, n)
	d.members = make([]uint32, 0, left)
	end, last := uint64(headerSize), int64(0)
	for range n {
		end, last = r.cluster(d, end, last)
		if r.err != nil {
			return
		}
	}
	if len(d.members) != left {
		r.fail("%d clustered slots are in no cluster", left-len(d.members))
	}
}

func (r *dirReader) cluster(d *directory, end uint64, last int64) (uint64, int64) {
	c, pages := codec(r.byte()), int(r.uvarint(MaxClusterPages))
	stored := r.uvarint(MaxClusterPages*PageSize + crcSize)
	off := end + r.uvarint(MaxBytes)
	size := uint64(pages) * PageSize
	switch {
	case pages == 0 || off+stored > r.limit,
		c != codecRaw && c != codecFrame,
		c == codecRaw && stored != size+crcSize,
		c == codecFrame && (stored <= crcSize || stored >= size+crcSize):
		r.fail("cluster of %d pages, codec %d, %d bytes at %d", pages, c, stored, off)
		return end, last
	}
	it := clusterEntry{
		off: uint32(off), stored: uint32(stored), first: uint32(len(d.members)), pages: uint16(pages),
		codec: c,
	}
	for i := range pages {
		if i == 0 {
			last += r.varint()
		} else {
			last += int64(r.uvarint(MaxSlots)) + 1
		}
		if r.err != nil || last < 0 || last >= int64(len(d.slots)) || d.slots[last] != nowhere {
			r.fail("slot %d is not in cluster %d", last, len(d.clusters))
			return end, last
		}
		d.slots[last] = slotEntry{off: uint32(len(d.clusters)), len: uint16(i), codec: codecClustered}
		d.members = append(d.members, uint32(last))
	}
	d.clusters = append(d.clusters, it)
	return off + stored, last
}

// varint reads the difference of two slots.
func (r *dirReader) varint() int64 {
	v := r.uvarint(2 * MaxSlots)
	return int64(v>>1) ^ -int64(v&1)
}

// Clusters is the number of clusters.
func (r *Reader) Clusters() int { return len(r.dir.clusters) }

// ClusterOf returns the cluster that a page lies in; ok is false for one that lies in its block, is dead,
// or is not there. Clusters have other numbers in each generation of a pack.
func (r *Reader) ClusterOf(slot uint32) (cluster int, ok bool) {
	if int(slot) >= len(r.dir.slots) || r.dir.slots[slot].codec != codecClustered {
		return 0, false
	}
	return int(r.dir.slots[slot].off), true
}

// ClusterSlots returns the slots whose pages lie in a cluster, ascending. It must not be changed.
func (r *Reader) ClusterSlots(cluster int) []uint32 { return r.dir.slotsOf(cluster) }

// ClusterBytes is the number of bytes that a cluster takes in the file.
func (r *Reader) ClusterBytes(cluster int) int { return int(r.dir.clusters[cluster].stored) }

// ReadCluster reads a cluster: the page of ClusterSlots(cluster)[i] goes to dst[i*4096:], which must have
// room for all of them. It is one read of the blob, one checksum and one decoding: all of its slots can
// be read, or none.
func (r *Reader) ReadCluster(cluster int, dst []byte, bad *BadSlots) {
	bad.reset(r)
	s := r.dec.get()
	defer r.dec.scratch.Put(s)
	n := int(r.dir.clusters[cluster].pages) * PageSize
	if err := r.cluster(r, s, cluster, dst[:n:n]); err != nil {
		clear(dst[:n])
		for _, slot := range r.dir.slotsOf(cluster) {
			bad.add(slot, slot+1, err)
		}
	}
}

// cluster reads a cluster out of what src has, into dst, which has its size.
func (r *Reader) cluster(src stored, s *decoderScratch, c int, dst []byte) error {
	it := r.dir.clusters[c]
	s.in = grown(s.in, zstdPrefix+int(it.stored))
	if err := src.read(s.in[zstdPrefix:], int64(it.off)); err != nil {
		return err
	}
	return r.unpack(c, s.in, dst)
}

// unpack verifies and decodes a cluster that was read, behind zstdPrefix bytes of room.
func (r *Reader) unpack(c int, in, dst []byte) error {
	r.dec.clusters.Add(1)
	var err error
	data, sum := in[zstdPrefix:len(in)-crcSize], binary.LittleEndian.Uint32(in[len(in)-crcSize:])
	switch {
	case clusterChecksum(data, r.foot.number, uint32(c), r.dir.slotsOf(c)) != sum:
		err = errChecksum
	case r.dir.clusters[c].codec == codecRaw:
		copy(dst, data)
	default:
		// As quick as those of units: a machine may wait for a page of it.
		err = inflate(r.dec.units, dst, data)
	}
	if err != nil {
		return r.corrupt(fmt.Sprintf("cluster %d", c), err)
	}
	return nil
}

// room returns scratch memory for the pages of a cluster.
func (s *decoderScratch) room(pages int) []byte {
	s.pages = grown(s.pages, pages*PageSize+slack)
	return s.pages[:pages*PageSize]
}

// clusterPage is readPage of a page that lies in a cluster.
func (r *Reader) clusterPage(src stored, s *decoderScratch, e slotEntry, dst []byte) error {
	pages := s.room(int(r.dir.clusters[e.off].pages))
	if err := r.cluster(src, s, int(e.off), pages); err != nil {
		return err
	}
	copy(dst, pages[int(e.len)*PageSize:][:PageSize])
	return nil
}

// clusterSlots reads those pages of the slots from first to before end that lie in the same cluster as
// slot, all of them if slot is the first. The page of first goes to dst.
func (r *Reader) clusterSlots(src stored, s *decoderScratch, slot, first, end uint32, dst []byte,
	bad *BadSlots) {
	e := r.dir.slots[slot]
	members := r.dir.slotsOf(int(e.off))
	if e.len > 0 && members[e.len-1] >= first {
		return // they were read with that one
	}
	pages := s.room(len(members))
	err := r.cluster(src, s, int(e.off), pages)
	for i, m := range members[e.len:] {
		if m >= end {
			break
		}
		if err != nil {
			bad.add(m, m+1, err)
		} else {
			copy(dst[(m-first)*PageSize:][:PageSize], pages[(int(e.len)+i)*PageSize:])
		}
	}
}
