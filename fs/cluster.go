package fs

import "sync"

// clusters are those that READs of cold pages have decoded last. Decoding one page of a cluster decodes all,
// and so the cluster is kept: for the pusher that pushes its other pages behind the answer, and for READs of
// them that come before it, that of other clones, or where nothing may be pushed. Nobody waits for a cluster
// that another READ is decoding.
//
// There are maxClusters buffers, 2 MiB with clusters of 16 pages, made when they are first needed. While all
// of them are in use a cold page is read alone. The lock is held for a few comparisons.
type clusters struct {
	mu    sync.Mutex
	clock uint64
	all   [maxClusters]cluster // what is in them is guarded by mu, but for the pages
}

// A cluster is a buffer. Its pages are written by the READ that took it empty, and do not change while it is
// kept and in use.
type cluster struct {
	Cluster
	of    clusterKey
	kept  bool   // the pages are there
	users int    // READs and jobs of pushers
	used  uint64 // the clock when it was taken last
}

// clusterKey names a cluster of an image that was opened; another opening has other ones.
type clusterKey struct {
	image uint64
	id    ClusterID
}

const maxClusters = 32

// take returns a cluster, or, if there is false, a buffer to read it into; nil if all are in use.
func (d *clusters) take(of clusterKey) (c *cluster, there bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.all {
		x := &d.all[i]
		if x.kept && x.of == of {
			c, there = x, true
			break
		}
		if x.users == 0 && (c == nil || x.used < c.used) {
			c = x
		}
	}
	if c == nil {
		return nil, false
	}
	d.clock++
	c.of, c.kept, c.used = of, there, d.clock
	c.users++
	return c, there
}

// keep notes that the pages of a buffer are there.
func (d *clusters) keep(c *cluster) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.kept = true
}

// give returns what was taken. Nil is nothing.
func (d *clusters) give(c *cluster) {
	if c == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c.users--
}

// readPage reads the one page that a READ asks for; if it is cold, with its cluster.
func (s *Server) readPage(r *reply, dst []byte) error {
	c, at, there := s.takeCluster(r.h, r.first)
	if c == nil {
		return r.h.mem.ReadPage(r.first, dst)
	}
	r.cluster = c // which it gives back, whatever becomes of it
	if !there {
		if err := s.decode(r.h, r.first, c); err != nil {
			return err
		}
	}
	copy(dst, c.Pages[at*PageSize:][:PageSize])
	return nil
}

// takeCluster takes the cluster that a page lies in, and says which page of it that is; if it is not there,
// it is to be decoded. c is nil for a page that lies in none, and while all buffers are in use.
func (s *Server) takeCluster(h *openImage, gfn uint64) (c *cluster, at int, there bool) {
	id, at, ok := h.mem.Cluster(gfn)
	if !ok {
		return nil, 0, false
	}
	c, there = s.clusters.take(clusterKey{h.serial, id})
	return c, at, there
}

// decode reads the cluster that a page lies in into the buffer that was taken for it.
func (s *Server) decode(h *openImage, gfn uint64, c *cluster) error {
	if err := h.mem.ReadCluster(gfn, &c.Cluster); err != nil {
		return err
	}
	s.clusters.keep(c)
	return nil
}
