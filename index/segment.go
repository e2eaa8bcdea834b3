package index

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"

	"github.com/thawfs/thaw/index/pack"
)

// framePages is how many pages a frame of a segment holds.
const framePages = pack.FrameBytes / PageSize

// maxSegment bounds the pages of a segment, which are stored twice: a quarter of the image, or 64
// MiB if that is more. The rest, which is the end of the working set and least urgent, is read from
// the blocks.
func maxSegment(pages uint64) uint64 { return max(pages/4, 64<<20/PageSize) }

// segmentPages is how many pages of a set its segment has.
func segmentPages(set []Run, pages uint64) uint64 { return min(maxSegment(pages), countPages(set)) }

// quickPages is how many pages at the begin of a segment are in frames that are quick to decode: 128 MiB,
// which is what a guest waits for. They take a quarter more space, 11 MiB a checkpoint at most. The
// rest of a large working set is brought while the guest runs already.
const quickPages = 128 << 20 / PageSize

// segment is a finished segment pack.
type segment struct {
	number uint64
	id     uint64 // of the pack
	bytes  int64
	frames int
	zero   uint64 // pages
	set    []Run
}

// into notes the segment in a root.
func (g *segment) into(r *root) {
	r.top.segment = g.number
	r.SegmentBytes = g.bytes
	r.WorkingSet = &WorkingSetInfo{
		Pages: countPages(g.set), ZeroPages: g.zero, Runs: len(g.set), Frames: g.frames,
	}
}

// frameJob is a frame to be read and compressed.
type frameJob struct {
	gfns []uint64
	zero uint64
	enc  pack.EncodedFrame
}

// frameGFNs cuts a working set into frames: first-touch order between frames, ascending within one.
func frameGFNs(set []Run, max uint64, emit func(gfns []uint64) error) (err error) {
	var cur []uint64
	flush := func() {
		if len(cur) > 0 && err == nil {
			slices.Sort(cur)
			err = emit(cur)
			cur = nil
		}
	}
	n := uint64(0)
	eachPage(set, func(gfn uint64) {
		if n == max {
			return
		}
		n++
		cur = append(cur, gfn)
		if len(cur) == framePages {
			flush()
		}
	})
	flush()
	return err
}

// proved returns a function like read, which also compares every page with the hash of the page that
// the page map has in its place: a segment must hold copies of these pages only. It may be used by many
// goroutines at once, until done is called.
func (s *Store) proved(ctx context.Context, name string, pages *pageMap,
	read func(gfns []uint64, buf []byte) error) (_ func(gfns []uint64, buf []byte) error, done func()) {
	packs := newLazyPacks(ctx, s.packs)
	hashes := newRawHashes(packs)
	var mu sync.Mutex // of hashes
	want := func(gfns []uint64) ([]pack.Hash, error) {
		mu.Lock()
		defer mu.Unlock()
		out := make([]pack.Hash, len(gfns))
		for i, gfn := range gfns {
			ref := pages.ref(gfn)
			if ref == 0 {
				continue
			}
			var err error
			if out[i], err = hashes.of(ref); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return func(gfns []uint64, buf []byte) error {
		if err := read(gfns, buf); err != nil {
			return err
		}
		sums, err := want(gfns)
		if err != nil {
			return err
		}
		hasher := pack.NewHasher(s.key)
		other := &PagesError{Name: name,
			Err: &CorruptError{Pack: name, What: "a page, or its hash,", Err: pack.ErrHash}}
		for i, gfn := range gfns {
			page := buf[i*PageSize:][:PageSize]
			zero := pages.ref(gfn) == 0
			if zero && !isZero(page) || !zero && hasher.Sum(page) != sums[i] {
				other.GFNs = append(other.GFNs, gfn)
			}
		}
		if len(other.GFNs) > 0 {
			return other
		}
		return nil
	}, packs.release
}

// writeSegment makes the segment pack of a working set (clean, not empty). read reads pages of the
// image, which has so many pages. The pack is a blob then, and known to the store.
func (s *Store) writeSegment(ctx context.Context, set []Run, pages uint64, profile Profile,
	read func(gfns []uint64, buf []byte) error, progress func(Progress)) (_ *segment, err error) {
	enc, err := pack.NewEncoder(profile)
	if err != nil {
		return nil, err
	}
	seg := &segment{set: set}
	if seg.number, err = s.alloc.take(ctx); err != nil {
		return nil, err
	}
	w, err := s.createPack(ctx, seg.number)
	if err != nil {
		return nil, err
	}
	g := newTasks(ctx)
	n := runtime.GOMAXPROCS(0)
	frames := newOrdered(g, n, 2*n, func() func(*frameJob) error {
		return frameWorker(enc, read)
	})
	limit := segmentPages(set, pages)
	m := newMeter(progress, "segment", "pages", int64(limit))
	g.run(func() error {
		defer frames.end()
		n := 0
		return frameGFNs(set, limit, func(gfns []uint64) error {
			j := &frameJob{gfns: gfns}
			j.enc.Quick = n < quickPages
			n += len(gfns)
			return frames.submit(j)
		})
	})
	err = seg.append(frames, w, m)
	g.cancel(err)
	if werr := g.wait(); err == nil && !errors.Is(werr, context.Canceled) {
		err = werr
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		seg.bytes, err = w.Finish()
	}
	if err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	s.packs.addWritten(w, seg.bytes)
	seg.id = w.ID()
	return seg, nil
}

func frameWorker(enc *pack.Encoder, read func([]uint64, []byte) error) func(*frameJob) error {
	buf := make([]byte, framePages*PageSize)
	pages := make([][]byte, 0, framePages)
	return func(j *frameJob) error {
		if err := read(j.gfns, buf[:len(j.gfns)*PageSize]); err != nil {
			return err
		}
		pages = pages[:0]
		for i := range j.gfns {
			p := buf[i*PageSize : (i+1)*PageSize]
			if isZero(p) {
				j.zero++
			}
			pages = append(pages, p)
		}
		return enc.EncodeFrame(&j.enc, j.gfns, pages)
	}
}

// append takes the frames in their order.
func (g *segment) append(frames *ordered[*frameJob], w *pack.Writer, m *meter) error {
	for {
		j, ok, err := frames.receive()
		if err != nil || !ok {
			return err
		}
		if _, err := w.AppendFrame(&j.enc); err != nil {
			return err
		}
		g.frames++
		g.zero += j.zero
		m.add(int64(len(j.gfns)))
	}
}
