package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/pack"
)

// memory writes every page of the image whose hash is right. Zero pages stay holes.
func (x *exporter) memory(ctx context.Context) error {
	return writeNew(filepath.Join(x.dir, fileMemory), func(f *os.File) error {
		if err := f.Truncate(x.m.Size()); err != nil {
			return err
		}
		want := map[uint64]pack.Hash{} // of lost pages, by which they can be recognised elsewhere
		if err := x.pages(ctx, f, want); err != nil {
			return err
		}
		return x.fromSegment(ctx, f, want)
	})
}

// exportJob is a piece of the image.
type exportJob struct {
	i        int
	pack     string // that it lies in
	pages    int
	lost     *PagesError          // nil: none
	want     map[uint64]pack.Hash // hashes of those
	unproved []uint64             // pages whose hashes are damaged
}

// pages writes what the packs have, and puts the hashes of lost pages into want.
func (x *exporter) pages(ctx context.Context, f *os.File, want map[uint64]pack.Hash) error {
	feed := x.m.EagerFeed().(*eagerFeed)
	meter := newMeter(x.progress, "export", "bytes", int64(x.m.pages.data)*PageSize)
	var next atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			var p Piece
			proof := &prover{hasher: pack.NewHasher(x.m.s.key)}
			for {
				j := &exportJob{i: int(next.Add(1)) - 1}
				if j.i >= feed.Len() {
					return nil
				}
				if err := x.proved(gctx, feed, j, &p, proof); err != nil {
					return err
				}
				if err := writePages(f, &p); err != nil {
					return err
				}
				x.note(j, want)
				x.mu.Lock()
				meter.add(int64(j.pages) * PageSize)
				x.mu.Unlock()
			}
		})
	}
	return g.Wait()
}

// note notes what is wrong with a piece.
func (x *exporter) note(j *exportJob, want map[uint64]pack.Hash) {
	if j.lost != nil {
		x.lost.addAll(j.lost)
		x.mu.Lock()
		maps.Copy(want, j.want)
		x.mu.Unlock()
	}
	for _, gfn := range j.unproved {
		x.unproved.add(gfn, 1, &CorruptError{Pack: j.pack, What: "hashes", Err: pack.ErrHash})
	}
}

// proved reads a piece and leaves out pages whose hashes are wrong. j gets the lost pages, and their
// hashes as far as they are known. Where the hashes of the pack are damaged themselves, a page
// that does not match stays: its own checksum was right.
func (x *exporter) proved(ctx context.Context, f *eagerFeed, j *exportJob, p *Piece, proof *prover) error {
	err := ReadPiece(ctx, f, j.i, p)
	if err != nil && !errors.As(err, &j.lost) {
		return err
	}
	piece := f.pieces[j.i]
	pages := f.m.reverse().packs[piece.pack][piece.from:piece.to]
	j.pages = len(pages)
	if len(p.GFNs) == 0 && j.lost != nil && f.m.missing[piece.pack] != nil {
		return nil
	}
	open, err := f.m.acquire(uint64(piece.pack))
	if err != nil {
		return f.m.spanError(err)
	}
	defer open.release()
	j.pack = open.Name()
	if err := proof.read(open.Reader, pages); err != nil {
		return f.m.spanError(err)
	}
	var wrong []spotGFN
	at := 0 // in p: its pages are in the order of spots, without those that are lost
	for _, s := range pages {
		hash, known := proof.hash(s.spot())
		if at < len(p.GFNs) && p.GFNs[at] == s.gfn() {
			page := p.Pages[at*PageSize:][:PageSize]
			at++
			if known && proof.hasher.Sum(page) == hash {
				continue
			}
			if x.hashesDamaged(open) {
				j.unproved = append(j.unproved, s.gfn())
				continue
			}
			wrong = append(wrong, s)
		}
		if known {
			if j.want == nil {
				j.want = map[uint64]pack.Hash{}
			}
			j.want[s.gfn()] = hash
		}
	}
	if len(wrong) > 0 {
		lost := f.m.loseAll(wrong, &CorruptError{Pack: open.Name(),
			What: fmt.Sprintf("slot %d", open.Spots().Slot(wrong[0].spot())), Err: pack.ErrHash})
		p.drop(lost.GFNs)
		if j.lost == nil {
			j.lost = lost
		} else {
			j.lost.GFNs = append(j.lost.GFNs, lost.GFNs...)
		}
	}
	return nil
}

// hashesDamaged says whether the hashes of a pack are not those that were written.
func (x *exporter) hashesDamaged(p *openPack) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	damaged, known := x.badHashes[p.Number()]
	if !known {
		_, err := p.Hashes()
		damaged = isDamage(err)
		x.badHashes[p.Number()] = damaged
	}
	return damaged
}

// fromSegment takes lost pages from the segment, if their hashes are right there.
func (x *exporter) fromSegment(ctx context.Context, f *os.File, want map[uint64]pack.Hash) error {
	if len(want) == 0 {
		return nil
	}
	hasher := pack.NewHasher(x.m.s.key)
	return x.m.eachInSegment(ctx, func(gfn uint64) bool {
		_, ok := want[gfn]
		return ok
	}, func(gfn uint64, page []byte) error {
		if hasher.Sum(page) != want[gfn] {
			return nil
		}
		x.lost.found(gfn)
		_, err := f.WriteAt(page, int64(gfn)*PageSize)
		return err
	})
}

// eachInSegment passes on the wanted pages of the segment, as far as its frames can be read.
func (m *Image) eachInSegment(ctx context.Context, wanted func(gfn uint64) bool,
	give func(gfn uint64, page []byte) error) error {
	f := m.WorkingSetFeed().(*workingSetFeed)
	var frame pack.Frame
	for i := range f.frames {
		if err := ctx.Err(); err != nil {
			return err
		}
		gfns := f.gfns(i)
		if !slices.ContainsFunc(gfns, wanted) {
			continue
		}
		open, err := m.acquire(f.segment)
		if err != nil {
			return m.spanError(err)
		}
		err = open.ReadFrame(i, &frame)
		open.release()
		if isDamage(err) || err == nil && !slices.Equal(frame.GFNs, gfns) {
			continue
		}
		if err != nil {
			return m.spanError(err)
		}
		for j, gfn := range gfns {
			if !wanted(gfn) {
				continue
			}
			if err := give(gfn, frame.Pages[j*PageSize:][:PageSize]); err != nil {
				return err
			}
		}
	}
	return nil
}

// writePages writes pages to their places, neighbours at once.
func writePages(f *os.File, p *Piece) error {
	// Pages of clusters come in any order.
	order := make([]int, len(p.GFNs))
	for i := range order {
		order[i] = i
	}
	if !slices.IsSorted(p.GFNs) {
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(p.GFNs[a], p.GFNs[b]) })
	}
	var run [][]byte
	for i := 0; i < len(order); {
		first := p.GFNs[order[i]]
		run = run[:0]
		for i < len(order) && p.GFNs[order[i]] == first+uint64(len(run)) && len(run) < maxRun {
			run = append(run, p.Pages[order[i]*PageSize:][:PageSize])
			i++
		}
		if err := writeRun(f, run, int64(first)*PageSize); err != nil {
			return err
		}
	}
	return nil
}

// maxRun is how many pages are written at once at most: the kernel takes no more buffers.
const maxRun = 1024

// writeRun writes pages that lie anywhere in memory side by side into a file.
func writeRun(f *os.File, run [][]byte, off int64) error {
	if len(run) > 1 {
		n, err := unix.Pwritev(int(f.Fd()), run, off)
		if err == nil && n == len(run)*PageSize {
			return nil
		}
	}
	// One page; or what was not written whole is written again, for the error or the rest.
	for _, page := range run {
		if _, err := f.WriteAt(page, off); err != nil {
			return err
		}
		off += PageSize
	}
	return nil
}
