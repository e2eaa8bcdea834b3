package index

import "github.com/thawfs/thaw/index/pack"

// ClusterID names a cluster of cold pages in one open image.
type ClusterID uint64

// A Cluster is the pages of one cluster, decoded. It may be read into again and again; in between it may be
// used by many goroutines at once.
type Cluster struct {
	ID ClusterID
	// Pages are all of its pages as they lie in it, those of other images among them.
	Pages []byte

	buf []byte
	bad pack.BadSlots
}

// DecodedClusters is how many clusters of the store were decoded so far.
func (s *Store) DecodedClusters() uint64 { return s.dec.Clusters() }

// Cluster returns the cluster that a page lies in, and which page of it that is: Cluster.Pages[at*4096:]. ok
// is false for a page that lies in its block, a zero page, and one whose pack could not be opened. It does
// no I/O, takes no lock and allocates nothing.
func (m *Image) Cluster(gfn uint64) (id ClusterID, at int, ok bool) {
	position, spot, ok := m.spot(gfn)
	if !ok {
		return 0, 0, false
	}
	first, _, ok := m.spots[position].ClusterAt(spot)
	return ClusterID(position<<32 | uint64(first)), int(spot - first), ok
}

// ReadCluster reads the cluster that a page lies in: one read and one decoding, as ReadPage. It fails like
// that, and allocates nothing if c has had room for such a cluster before. On a high-latency medium it
// stays in memory for a while.
func (m *Image) ReadCluster(gfn uint64, c *Cluster) error {
	c.Pages = c.Pages[:0]
	position, spot, ok := m.spot(gfn)
	if !ok {
		return m.pageError(gfn, errNoCluster)
	}
	first, count, ok := m.spots[position].ClusterAt(spot)
	if !ok {
		return m.pageError(gfn, errNoCluster)
	}
	p, err := m.acquire(position)
	if err != nil {
		return m.pageError(gfn, err)
	}
	defer p.release()
	if cap(c.buf) < int(count)*PageSize {
		c.buf = make([]byte, int(count)*PageSize)
	}
	pages := c.buf[:int(count)*PageSize]
	m.s.blocks.readSpots(p.Reader, first, pages, &c.bad)
	if err := c.bad.Err(spot); err != nil {
		return m.pageError(gfn, err)
	}
	c.ID, c.Pages = ClusterID(position<<32|uint64(first)), pages
	return nil
}

// ClusterPages replaces what p holds by the pages of the image in a cluster of it that was read: those that
// BlockGFNs names.
func (m *Image) ClusterPages(c *Cluster, p *Piece) {
	position, first := int(c.ID>>32), uint32(c.ID)
	p.near = m.reverse().near(position, first, first+uint32(len(c.Pages)/PageSize), p.near[:0])
	p.Pages = p.reset(len(p.near))
	for i, x := range p.near {
		copy(p.Pages[i*PageSize:][:PageSize], c.Pages[int(x.spot()-first)*PageSize:])
		p.GFNs = append(p.GFNs, x.gfn())
	}
}
