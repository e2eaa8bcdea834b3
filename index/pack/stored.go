package pack

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/thawfs/thaw/index/blob"
)

// StoredBytes is what a page takes in the file, about: its part of the unit or cluster that it lies in. 0
// for a dead one.
func (r *Reader) StoredBytes(slot uint32) int {
	if r.Dead(slot) {
		return 0
	}
	if c, ok := r.ClusterOf(slot); ok {
		return r.ClusterBytes(c) / len(r.ClusterSlots(c))
	}
	e := r.dir.slots[slot]
	return int(e.len) / e.pages()
}

// Quick says whether a page is stored as TierHot would store it: it takes the least time to decode.
func (r *Reader) Quick(slot uint32) bool {
	if r.Dead(slot) {
		return false
	}
	e := r.dir.slots[slot]
	return (e.codec == codecLZ4 || e.codec == codecRaw) && e.pages() == 1
}

// A ClusterGauge finds out how many bytes pages take as a cluster. It is used by one goroutine.
type ClusterGauge struct {
	z    *zstd.Encoder
	most int
	out  []byte
}

// NewClusterGauge makes one for the packs of a profile.
func NewClusterGauge(p Profile) (*ClusterGauge, error) {
	if int(p) >= len(tunings) {
		return nil, fmt.Errorf("unknown %v", p)
	}
	t := tunings[p].cluster
	z, err := newZstdEncoder(t.level, MaxClusterPages*PageSize, true)
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return &ClusterGauge{z: z, most: t.pages}, nil
}

// Pages is how many pages a cluster has.
func (g *ClusterGauge) Pages() int { return g.most }

// Bytes is how many bytes pages take, one after another, as a cluster.
func (g *ClusterGauge) Bytes(pages []byte) int {
	g.out = g.z.EncodeAll(pages, g.out[:0])
	return min(len(g.out), len(pages)) + crcSize
}

// Summary is what the footer of a pack says.
type Summary struct {
	Bytes                   int64
	Slots, Clusters, Frames int
}

// Summarize reads the footer of a pack, and no more.
func Summarize(obj blob.Object, name string) (Summary, error) {
	r := &Reader{obj: obj, name: name}
	size := obj.Size()
	if size < headerSize+footerSize {
		return Summary{}, r.corrupt("file", fmt.Errorf("%d bytes are too few", size))
	}
	b := make([]byte, footerSize)
	if err := r.read(b, size-footerSize); err != nil {
		return Summary{}, err
	}
	f, err := r.footer(b, size)
	if err != nil {
		return Summary{}, err
	}
	return Summary{Bytes: size, Slots: int(f.slots), Clusters: int(f.clusters), Frames: int(f.frames)}, nil
}
