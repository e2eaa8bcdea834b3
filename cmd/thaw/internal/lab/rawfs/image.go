package rawfs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/blob/disk"
)

// image is a file on a disk, which may be simulated.
type image struct {
	f      *index.MemoryFile
	disk   *disk.Disk // nil: the host's own
	places places
}

var _ fs.Image = (*image)(nil)

func (m *image) Size() int64          { return m.f.Size() }
func (m *image) Close() error         { return m.f.Close() }
func (m *image) Zero(gfn uint64) bool { return m.places.hole(gfn) }

// A file has no working set, no blocks and no clusters: the kernel brings what it will.

func (m *image) Local() bool                                { return false }
func (m *image) Neighbours(_ uint64, dst []uint64) []uint64 { return dst }
func (m *image) ReadNeighbours(uint64, *fs.Piece) error     { return nil }
func (m *image) Cluster(uint64) (fs.ClusterID, int, bool)   { return 0, 0, false }
func (m *image) ReadCluster(uint64, *fs.Cluster) error      { return errors.ErrUnsupported }
func (m *image) ClusterPages(*fs.Cluster, *fs.Piece)        {}
func (m *image) WorkingSetFeed() fs.Feed                    { return &feed{m: m} }
func (m *image) Orders() []fs.Order                         { return nil }
func (m *image) ReadPage(gfn uint64, dst []byte) error      { return m.ReadRange(gfn, dst) }
func (m *image) ZeroRuns(fn func(first, count uint64) bool) { m.places.holes(m.pages(), fn) }

func (m *image) NextData(gfn uint64) uint64   { return m.places.next(gfn, m.pages()) }
func (m *image) NextZero(gfn uint64) uint64   { return m.places.nextHole(gfn, m.pages()) }
func (m *image) DataBefore(gfn uint64) uint64 { return m.places.before(gfn) }

func (m *image) pages() uint64 { return uint64(m.Size()) / fs.PageSize }

// ReadRange is one request to the disk, for those of the pages that are data.
func (m *image) ReadRange(first uint64, dst []byte) (err error) {
	read := func() { err = m.read(first, dst) }
	from := m.places.before(first)
	n := m.places.before(first+uint64(len(dst))/fs.PageSize) - from
	if n == 0 || m.disk == nil {
		read()
	} else {
		m.disk.Serve(disk.Request{Pos: int64(from * fs.PageSize), Size: int64(n * fs.PageSize)}, read)
	}
	return err
}

func (m *image) read(first uint64, dst []byte) error {
	n, err := m.f.ReadAt(dst, int64(first*fs.PageSize))
	if n == len(dst) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read page %d: %w", first, err)
}

// PagesFeed is some pages of the file.
func (m *image) PagesFeed(runs []fs.Run) fs.Feed { return &feed{m: m, pieces: runs} }

// eagerPages is how much of the file is read at once: 1 MiB.
const eagerPages = 256

// EagerFeed is all data from the beginning of the file to its end.
func (m *image) EagerFeed() fs.Feed {
	f := &feed{m: m}
	for _, p := range m.places {
		for at := uint64(0); at < p.Count; at += eagerPages {
			n := min(p.Count-at, eagerPages)
			f.pieces = append(f.pieces, index.Run{GFN: p.GFN + at, Count: n})
		}
	}
	return f
}

// feed is some parts of the file.
type feed struct {
	m      *image
	pieces []index.Run
}

func (f *feed) Len() int { return len(f.pieces) }

func (f *feed) GFNs(i int, dst []uint64) []uint64 {
	r := f.pieces[i]
	for gfn := r.GFN; gfn < r.GFN+r.Count; gfn++ {
		dst = append(dst, gfn)
	}
	return dst
}

func (f *feed) Parallel() int {
	if f.m.disk == nil {
		return 1
	}
	return max(f.m.disk.Medium().Parallel, 1)
}

func (f *feed) Fetch(ctx context.Context, i int, p *fs.Piece) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := f.pieces[i]
	p.GFNs = f.GFNs(i, p.GFNs[:0])
	if n := int(r.Count) * fs.PageSize; cap(p.Pages) < n {
		p.Pages = make([]byte, n)
	} else {
		p.Pages = p.Pages[:n]
	}
	return f.m.ReadRange(r.GFN, p.Pages)
}

func (f *feed) Decode(*fs.Piece) error { return nil }
