package pack

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/thawfs/thaw/index/blob"
)

const (
	// maxPlan is how many pages are looked at together for those that are like one another.
	maxPlan = 1 << 16
	// clusterBatch is how many clusters are made at once, and then written.
	clusterBatch = 64
	// sketchPages is how many slots are read at once to be looked at.
	sketchPages = 256
)

// clusters writes the clusters of the new generation: those of the old one that stay, and then new ones of
// the other cold pages.
func (rw *rewriter) clusters(ctx context.Context) error {
	for c := range rw.r.Clusters() {
		if err := rw.step(ctx); err != nil {
			return err
		}
		if !slices.ContainsFunc(rw.r.ClusterSlots(c), func(s uint32) bool { return !rw.cold(s) }) {
			if err := rw.copyCluster(c); err != nil {
				return err
			}
		}
	}
	var pool []uint32
	for slot := range uint32(rw.r.Slots()) {
		if rw.done[slot] == pageLeft && rw.cold(slot) {
			pool = append(pool, slot)
		}
		if len(pool) == maxPlan || int(slot) == rw.r.Slots()-1 {
			if err := rw.makeClusters(ctx, pool); err != nil {
				return err
			}
			pool = pool[:0]
		}
	}
	return nil
}

// cold says whether a page is to lie in a cluster. One that was dead and comes back comes to its block.
func (rw *rewriter) cold(slot uint32) bool {
	if rw.r.Dead(slot) {
		return false
	}
	switch rw.tiers[slot] {
	case TierCold:
		return true
	case TierKeep:
		_, ok := rw.r.ClusterOf(slot)
		return ok
	}
	return false
}

// copyCluster copies a cluster as it is, if all of its pages can be copied; else those that there are
// make a new one.
func (rw *rewriter) copyCluster(c int) error {
	s := rw.r.dec.get()
	defer rw.r.dec.scratch.Put(s)
	slots := rw.r.ClusterSlots(c)
	pages := s.room(len(slots))
	bad := rw.r.cluster(rw.src, s, c, pages)
	j := clusterJob{slots: slots}
	copied, err := rw.resolve(&j, rw.hasher, pages, func(uint32) error { return bad })
	if err != nil {
		return err
	}
	if copied && bad == nil {
		stored := s.in[zstdPrefix : zstdPrefix+rw.r.ClusterBytes(c)-crcSize]
		return rw.appendCluster(rw.r.dir.clusters[c].codec, j.slots, stored)
	}
	x, err := rw.compressor()
	if err != nil {
		return err
	}
	defer rw.idle.put(x)
	j.encode(x.z)
	return rw.appendJob(&j)
}

// clusterJob is a cluster that is made: of the pages of slots, which ascend.
type clusterJob struct {
	slots []uint32
	lost  []uint32 // that were to be in it
	raw   []byte   // the pages
	codec codec
	data  []byte
}

// resolve finds out what becomes of the pages of a cluster. copied says that all are as they were read.
func (rw *rewriter) resolve(j *clusterJob, h *Hasher, pages []byte, bad func(slot uint32) error) (
	copied bool, err error,
) {
	copied = true
	var kept []uint32
	j.raw = j.raw[:0]
	for i, slot := range j.slots {
		page, as, err := rw.page(slot, pages[i*PageSize:][:PageSize], bad(slot), h)
		if err != nil {
			return false, err
		}
		copied = copied && as
		if page == nil {
			j.lost = append(j.lost, slot)
			continue
		}
		kept = append(kept, slot)
		j.raw = append(j.raw, page...)
	}
	j.slots = kept
	return copied, nil
}

// encode compresses the pages.
func (j *clusterJob) encode(z *zstd.Encoder) {
	j.data = z.EncodeAll(j.raw, j.data[:0])
	if j.codec = codecFrame; len(j.data) >= len(j.raw) {
		j.codec, j.data = codecRaw, append(j.data[:0], j.raw...)
	}
}

// appendJob writes a cluster that was made.
func (rw *rewriter) appendJob(j *clusterJob) error {
	for _, slot := range j.lost {
		rw.done[slot] = pageLost
	}
	if len(j.slots) == 0 {
		return nil
	}
	return rw.appendCluster(j.codec, j.slots, j.data)
}

func (rw *rewriter) appendCluster(c codec, slots []uint32, data []byte) error {
	for _, slot := range slots {
		rw.done[slot] = pageClustered
	}
	return rw.w.appendCluster(c, slots, data)
}

// makeClusters puts cold pages into clusters. It reads them twice: to see which are like one another, and
// to compress them.
func (rw *rewriter) makeClusters(ctx context.Context, slots []uint32) error {
	if len(slots) == 0 {
		return nil
	}
	sketches, worth, err := rw.sketch(ctx, slots)
	if err != nil {
		return err
	}
	n := 0
	for i, slot := range slots {
		if worth[i] {
			slots[n], sketches[n] = slot, sketches[i]
			n++
		}
	}
	slots = slots[:n]
	plan := planClusters(sketches[:n], rw.enc.tuning.cluster)
	sketches = nil
	for batch := range slices.Chunk(plan, clusterBatch) {
		if err := rw.step(ctx); err != nil {
			return err
		}
		jobs := make([]clusterJob, len(batch))
		for i, members := range batch {
			for _, m := range members {
				jobs[i].slots = append(jobs[i].slots, slots[m])
			}
		}
		if err := rw.makeBatch(ctx, jobs); err != nil {
			return err
		}
		for i := range jobs {
			if !rw.smaller(&jobs[i]) {
				continue
			}
			if err := rw.appendJob(&jobs[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxFetched bounds the stored bytes that are kept in memory.
const maxFetched = 128 << 20

// fetchAll reads the whole pack from a medium on which reads here and there take long, if there is room for
// it.
func (rw *rewriter) fetchAll() error {
	if !blob.MediumOf(rw.r.obj).HighLatency() || rw.r.foot.dir.off > maxFetched {
		return nil
	}
	all := &Span{buf: make([]byte, 0, rw.r.foot.dir.off)}
	if err := rw.r.FetchSpots(0, rw.r.Spots().Len(), all); err != nil {
		return err
	}
	rw.src, rw.all = all, all
	return nil
}

// smaller says whether pages should lie in the cluster that was made of them: not if they take no more where
// they are, and can stay there.
func (rw *rewriter) smaller(j *clusterJob) bool {
	stored := 0
	for _, slot := range j.slots {
		if !rw.r.dir.slots[slot].inBlock() {
			return true
		}
		stored += rw.r.StoredBytes(slot)
	}
	return len(j.data)+crcSize < stored
}

// makeBatch makes clusters in parallel.
func (rw *rewriter) makeBatch(ctx context.Context, jobs []clusterJob) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range jobs {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return rw.make(&jobs[i])
		})
	}
	return g.Wait()
}

// make reads the pages of a cluster and compresses them.
func (rw *rewriter) make(j *clusterJob) error {
	c, err := rw.compressor()
	if err != nil {
		return err
	}
	defer rw.idle.put(c)
	c.pages = grown(c.pages, len(j.slots)*PageSize)
	causes := map[uint32]error{}
	for from := 0; from < len(j.slots); {
		to := from + 1
		for to < len(j.slots) && j.slots[to] == j.slots[to-1]+1 {
			to++
		}
		rw.r.readSlots(rw.src, j.slots[from], c.pages[from*PageSize:to*PageSize], &c.bad)
		for _, slot := range c.bad.Slots() {
			causes[slot] = c.bad.Err(slot)
		}
		from = to
	}
	if _, err := rw.resolve(j, c.hasher, c.pages, func(s uint32) error { return causes[s] }); err != nil {
		return err
	}
	j.encode(c.z)
	j.raw = nil
	return nil
}

// compressor is what making a cluster needs.
type compressor struct {
	z      *zstd.Encoder
	hasher *Hasher
	pages  []byte
	bad    BadSlots
}

// compressors are those that nobody uses: making one costs megabytes.
type compressors chan *compressor

// put keeps a compressor, if there is room: there are more of them than that when processors have come since.
func (c compressors) put(x *compressor) {
	select {
	case c <- x:
	default:
	}
}

func (rw *rewriter) compressor() (*compressor, error) {
	select {
	case c := <-rw.idle:
		return c, nil
	default:
	}
	level := rw.enc.tuning.cluster.level
	if rw.keep.Tier == nil {
		level = rw.enc.tuning.cluster.quick
	}
	z, err := newZstdEncoder(level, MaxClusterPages*PageSize, true)
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return &compressor{z: z, hasher: NewHasher(rw.key)}, nil
}

// sketch looks at pages; worth says which of them are smaller in a cluster: not those that do not
// compress. A page that cannot be read is worth it: whether it can be had is seen when it is copied.
func (rw *rewriter) sketch(ctx context.Context, slots []uint32) ([]sketch, []bool, error) {
	sketches, worth := make([]sketch, len(slots)), make([]bool, len(slots))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(slots); {
		to := from + 1
		for to < len(slots) && slots[to]-slots[from] < sketchPages {
			to++
		}
		if err := rw.step(ctx); err != nil {
			return nil, nil, errors.Join(err, g.Wait())
		}
		some, their, worth := slots[from:to], sketches[from:to], worth[from:to]
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return rw.sketchSome(some, their, worth)
		})
		from = to
	}
	return sketches, worth, g.Wait()
}

// sketchSome looks at pages which lie close together.
func (rw *rewriter) sketchSome(slots []uint32, sketches []sketch, worth []bool) error {
	s, err := rw.enc.get()
	if err != nil {
		return err
	}
	defer rw.enc.put(s)
	first := slots[0]
	var bad BadSlots
	s.raw = grown(s.raw, int(slots[len(slots)-1]-first+1)*PageSize)
	rw.r.readSlots(rw.src, first, s.raw, &bad)
	for i, slot := range slots {
		page := s.raw[(slot-first)*PageSize:][:PageSize]
		worth[i] = true
		switch err := bad.Err(slot); {
		case err == nil:
			sketches[i] = sketchOf(page)
			worth[i] = rw.r.dir.slots[slot].codec != codecRaw || compresses(s, page)
		case !IsDamage(err):
			return err
		}
	}
	return nil
}

// compresses says whether zstd makes a page that is stored as it is worth less.
func compresses(s *encoderScratch, page []byte) bool {
	s.out = s.unit.EncodeAll(page, s.out[:0])
	return len(s.out) < PageSize-PageSize/16
}
