package guestmem

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
)

// piece is memory that lies in a file without a gap: n bytes of the image from at on are the n bytes of
// the file from its offset from on.
type piece struct{ at, from, n int64 }

// pieceMemory is an image whose pieces lie in a file. What no piece has is zero.
type pieceMemory struct {
	f    *file
	size int64
	list []piece // ascending by at, without overlaps
}

var _ Memory = (*pieceMemory)(nil)

// Errors that callers put into words of their format.
var (
	errOverlap = errors.New("two pieces of it overlap")
	errBeyond  = errors.New("a piece of it lies behind the end of the file")
)

// newPieces makes an image of pieces in any order. Two that overlap are an error, unless they mean the
// same bytes of the file.
func newPieces(f *file, list []piece, size int64) (*pieceMemory, error) {
	m, err := layPieces(list, size, f.size)
	if err != nil {
		return nil, err
	}
	m.f = f
	return m, nil
}

// layPieces is newPieces without the file, of which only the size counts.
func layPieces(list []piece, size, fileSize int64) (*pieceMemory, error) {
	if size <= 0 || size > MaxSize || size%PageSize != 0 {
		return nil, fmt.Errorf("its memory has %d bytes", size)
	}
	slices.SortFunc(list, func(a, b piece) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.n, a.n)) })
	m := &pieceMemory{size: size}
	for _, p := range list {
		switch {
		case p.at < 0 || p.from < 0 || p.n < 0 || p.n > size || p.at > size-p.n:
			return nil, fmt.Errorf("it has %d bytes at %#x of a memory of %d", p.n, p.at, size)
		case p.n > fileSize || p.from > fileSize-p.n:
			return nil, fmt.Errorf("%w: %d bytes at %d of %d: it was cut short", errBeyond, p.n, p.from, fileSize)
		case p.n == 0:
			continue
		}
		if err := m.add(p); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// add adds a piece that does not begin before the last one.
func (m *pieceMemory) add(p piece) error {
	if n := len(m.list); n > 0 {
		last := &m.list[n-1]
		same := p.from-p.at == last.from-last.at
		switch end := last.at + last.n; {
		case p.at < end && !same:
			return fmt.Errorf("%w: at %#x and %#x", errOverlap, last.at, p.at)
		case p.at <= end && same:
			last.n = max(last.n, p.at+p.n-last.at)
			return nil
		}
	}
	m.list = append(m.list, p)
	return nil
}

// Size implements Memory.
func (m *pieceMemory) Size() int64 { return m.size }

// ReadAt implements Memory.
func (m *pieceMemory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > m.size {
		return 0, fmt.Errorf("read at %d of %d bytes", off, m.size)
	}
	atEnd := int64(len(p)) > m.size-off
	if atEnd {
		p = p[:m.size-off]
	}
	end := off + int64(len(p))
	i := sort.Search(len(m.list), func(i int) bool { return m.list[i].at+m.list[i].n > off })
	done := off
	for ; i < len(m.list) && m.list[i].at < end; i++ {
		x := m.list[i]
		start, stop := max(x.at, off), min(x.at+x.n, end)
		clear(p[done-off : start-off])
		if n, err := m.f.ReadAt(p[start-off:stop-off], x.from+start-x.at); n < int(stop-start) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return int(start-off) + n, err
		}
		done = stop
	}
	clear(p[done-off:])
	if atEnd {
		return len(p), io.EOF
	}
	return len(p), nil
}

// Extents implements Memory: the pieces without the holes of the file.
func (m *pieceMemory) Extents() ([]Run, error) {
	var out runs
	for _, x := range m.list {
		err := m.f.eachData(x.from, x.from+x.n, func(from, end int64) {
			out.add(x.at+from-x.from, x.at+end-x.from)
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// regions says where an image has what of guest-physical memory, if the addresses in it are those.
func (m *pieceMemory) regions() (list []Region) {
	for _, x := range m.list {
		from, end := uint64(x.at)/PageSize*PageSize, uint64(roundUp(x.at+x.n))
		if n := len(list); n > 0 && list[n-1].GPA+list[n-1].Bytes >= from {
			list[n-1].Bytes = max(end, list[n-1].GPA+list[n-1].Bytes) - list[n-1].GPA
			continue
		}
		list = append(list, Region{from, end - from, from})
	}
	return list
}
