package guestmem

import (
	"fmt"
	"io"
)

// pageTable is an image whose pages lie in a file one by one, behind headers and in any order: where each
// is (8 bytes a page). It is the sink of the parser that finds them.
type pageTable struct {
	f      *file
	size   int64
	leaves map[int64]*[tablePages]int64 // offsets in the file; 0: zero
	last   int64                        // the greatest leaf
}

// tablePages is how many pages a leaf has: 2 MiB of memory.
const tablePages = 512

var (
	_ Memory = (*pageTable)(nil)
	_ sink   = (*pageTable)(nil)
)

func newPageTable(f *file) *pageTable {
	return &pageTable{f: f, leaves: map[int64]*[tablePages]int64{}}
}

func (t *pageTable) data(in *input, at, n int64) {
	for ; n > 0 && in.err == nil; at, n = at+PageSize, n-PageSize {
		page := at / PageSize
		leaf := t.leaves[page/tablePages]
		if leaf == nil {
			leaf = new([tablePages]int64)
			t.leaves[page/tablePages] = leaf
			t.last = max(t.last, page/tablePages)
		}
		leaf[page%tablePages] = in.off
		in.skip(PageSize)
	}
}

func (t *pageTable) zero(_ *input, at, n int64) {
	for ; n > 0; at, n = at+PageSize, n-PageSize {
		if leaf := t.leaves[at/PageSize/tablePages]; leaf != nil {
			leaf[at/PageSize%tablePages] = 0
		}
	}
}

// offset is where a page lies in the file; 0 if it is zero.
func (t *pageTable) offset(page int64) int64 {
	if leaf := t.leaves[page/tablePages]; leaf != nil {
		return leaf[page%tablePages]
	}
	return 0
}

// Size implements Memory.
func (t *pageTable) Size() int64 { return t.size }

// Extents implements Memory.
func (t *pageTable) Extents() ([]Run, error) {
	var out runs
	for n := int64(0); n <= t.last; n++ {
		leaf := t.leaves[n]
		if leaf == nil {
			continue
		}
		for i, off := range leaf {
			if off != 0 {
				at := (n*tablePages + int64(i)) * PageSize
				out.add(at, at+PageSize)
			}
		}
	}
	return out, nil
}

// tableGap is how many bytes of headers may lie between two pages that are read together.
const tableGap = 64

// ReadAt implements Memory. Pages that follow each other in the file, but for their headers, are read
// together.
func (t *pageTable) ReadAt(p []byte, off int64) (int, error) {
	if off%PageSize != 0 || off < 0 || off > t.size {
		return 0, fmt.Errorf("read at %d of %d bytes", off, t.size)
	}
	whole := min(int64(len(p)), t.size-off) / PageSize * PageSize
	var buf []byte
	for done := int64(0); done < whole; {
		first := t.offset((off + done) / PageSize)
		if first == 0 {
			clear(p[done : done+PageSize])
			done += PageSize
			continue
		}
		end := done + PageSize
		last := first
		for end < whole {
			next := t.offset((off + end) / PageSize)
			if next < last+PageSize || next > last+PageSize+tableGap {
				break
			}
			last, end = next, end+PageSize
		}
		if n := int(last + PageSize - first); len(buf) < n {
			buf = make([]byte, n)
		}
		if n, err := t.f.ReadAt(buf[:last+PageSize-first], first); n < int(last+PageSize-first) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return int(done), err
		}
		for ; done < end; done += PageSize {
			copy(p[done:done+PageSize], buf[t.offset((off+done)/PageSize)-first:])
		}
	}
	if whole < int64(len(p)) {
		return int(whole), io.EOF
	}
	return len(p), nil
}
