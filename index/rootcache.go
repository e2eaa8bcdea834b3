package index

import (
	"context"
	"sync"
)

// rootCache keeps the roots of the checkpoints used last, on high-latency media: a restore needs the
// root for each file of the checkpoint.
type rootCache struct {
	mu    sync.Mutex
	roots [8]cachedRoot // the one used last first; guarded by mu
}

type cachedRoot struct {
	e *catalogEntry
	r *root
}

func newRootCache() *rootCache { return &rootCache{} }

func (c *rootCache) get(e *catalogEntry) *root {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, x := range c.roots {
		if x.e == e {
			copy(c.roots[1:i+1], c.roots[:i])
			c.roots[0] = x
			return x.r
		}
	}
	return nil
}

func (c *rootCache) add(e *catalogEntry, r *root) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	copy(c.roots[1:], c.roots[:])
	c.roots[0] = cachedRoot{e, r}
}

// rootOf reads the root of a checkpoint that is in use.
func (s *Store) rootOf(ctx context.Context, e *catalogEntry) (*root, error) {
	if r := s.roots.get(e); r != nil {
		return r, nil
	}
	r, err := readRoot(ctx, s.blobs, s.dec, e.Name, e.Generation)
	if err == nil {
		s.roots.add(e, r)
	}
	return r, err
}
