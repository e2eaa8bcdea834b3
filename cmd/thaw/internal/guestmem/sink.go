package guestmem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// sink takes memory from a parser that goes through an input from its beginning to its end. A file is gone
// through first only to learn where its pages are (a mapper, a table); of a stream the pages are taken as
// they come (a feeder).
type sink interface {
	// data: the next n bytes of the input are the memory from at on. The sink reads or skips them.
	data(in *input, at, n int64)
	// zero: n bytes of memory from at on are zero. Parsers of formats where a page may come again call it;
	// others leave zeros out.
	zero(in *input, at, n int64)
}

// mapper notes which pieces of the image lie where.
type mapper struct{ list []piece }

func (m *mapper) data(in *input, at, n int64) {
	if k := len(m.list); k > 0 {
		if x := &m.list[k-1]; x.at+x.n == at && x.from+x.n == in.off {
			x.n += n
			in.skip(n)
			return
		}
	}
	m.list = append(m.list, piece{at, in.off, n})
	in.skip(n)
}

func (m *mapper) zero(*input, int64, int64) {}

// feeder gives memory to the put of a Stream. Pages that come in parts are put together, and given at the
// end: the parts of a page may come far from each other.
type feeder struct {
	ctx   context.Context
	put   func(first uint64, pages []byte) error
	buf   []byte
	parts map[int64][]byte // by the number of the page
}

const (
	// feedBytes is how much memory is given on at once.
	feedBytes = 1 << 20
	// maxParts bounds the pages that come in parts: two for each range of a memory whose ranges are not whole
	// pages. A machine has some dozen.
	maxParts = 4096
)

// errOnlyFile is the end of an error for what a stream, or a compressed file, cannot be.
var errOnlyFile = errors.New("which only a file can have, not a stream")

// onlyFileHint says what to do about such an error; "" of another one.
func onlyFileHint(err error) string {
	if errors.Is(err, errOnlyFile) {
		return "decompress it into a file, and import that"
	}
	return ""
}

func newFeeder(ctx context.Context, put func(uint64, []byte) error) *feeder {
	return &feeder{ctx: ctx, put: put, buf: make([]byte, feedBytes), parts: map[int64][]byte{}}
}

func (f *feeder) data(in *input, at, n int64) {
	for n > 0 && in.err == nil {
		if at < 0 || at > MaxSize-n {
			in.failf("it has memory at %#x, which is beyond the 16 TiB that a machine may have", at)
			return
		}
		in.fail(f.ctx.Err())
		if inPage := at % PageSize; inPage != 0 || n < PageSize {
			k := min(n, PageSize-inPage)
			in.read(f.part(in, at/PageSize)[inPage : inPage+k])
			at, n = at+k, n-k
			continue
		}
		k := min(n/PageSize*PageSize, feedBytes)
		if in.read(f.buf[:k]); in.err == nil {
			in.fail(f.put(uint64(at)/PageSize, f.buf[:k]))
		}
		at, n = at+k, n-k
	}
}

func (f *feeder) zero(in *input, at, n int64) {
	if at < 0 || at > MaxSize-n || (at|n)%PageSize != 0 {
		in.failf("it has zeros at %#x", at)
		return
	}
	for ; n > 0 && in.err == nil; at, n = at+PageSize, n-PageSize {
		in.fail(f.put(uint64(at)/PageSize, zeroPage))
	}
}

// zeroPage is only read.
var zeroPage = bytes.Repeat([]byte{0}, PageSize)

// part is a page that comes in parts.
func (f *feeder) part(in *input, page int64) []byte {
	b := f.parts[page]
	if b == nil {
		if len(f.parts) == maxParts {
			in.failf("more than %d of its pages come in parts, %w", maxParts, errOnlyFile)
		}
		b = make([]byte, PageSize)
		f.parts[page] = b
	}
	return b
}

// flush gives on the pages that came in parts.
func (f *feeder) flush() error {
	for _, page := range slices.Sorted(maps.Keys(f.parts)) {
		if err := f.put(uint64(page), f.parts[page]); err != nil {
			return err
		}
	}
	return nil
}

// streamFunc is a Stream that is a function.
type streamFunc func(ctx context.Context, put func(first uint64, pages []byte) error) (End, error)

// Read implements Stream.
func (f streamFunc) Read(ctx context.Context, put func(uint64, []byte) error) (End, error) {
	return f(ctx, put)
}

// ascending checks that the parts of a memory come in the order of their addresses, each once.
type ascending struct{ end int64 }

func (a *ascending) next(at, n int64) error {
	switch {
	case at < 0 || n < 0 || at > MaxSize-n:
		return fmt.Errorf("it has %d bytes at %#x, which is beyond the 16 TiB that a machine may have", n, at)
	case at < a.end:
		return fmt.Errorf("%w or are out of order: at %#x, behind %#x", errOverlap, at, a.end)
	}
	a.end = at + n
	return nil
}

// errNothing is the error for a file without memory.
var errNothing = errors.New("there is no memory in it")
