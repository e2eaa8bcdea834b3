package guestmem

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// input is a file or stream that is read from its beginning to its end. Its methods return what was read
// or the first error, after which all others fail too: so a parser looks at err once a step.
type input struct {
	ctx  context.Context // nil: of a stream that nobody reads yet, or whose reader has it
	r    *bufio.Reader
	f    *file // nil: a stream
	path string
	off  int64
	err  error

	// kept gets a copy of what is read while it is not nil.
	kept io.Writer
}

// inputBytes is the size of the buffer.
const inputBytes = 256 << 10

// newInput reads a file from an offset on, for as long as the context lasts.
func newInput(ctx context.Context, f *file, off int64) *input {
	in := &input{ctx: ctx, f: f, path: f.path}
	in.seek(off)
	return in
}

// newStreamInput reads a stream.
func newStreamInput(path string, r io.Reader) *input {
	return &input{path: path, r: bufio.NewReaderSize(r, inputBytes)}
}

func (in *input) seek(off int64) {
	in.off = off
	section := io.NewSectionReader(in.f, off, max(in.f.size-off, 0))
	in.r = bufio.NewReaderSize(lasting{in.ctx, section}, inputBytes)
}

// lasting is a reader whose reads fail when its context has ended.
type lasting struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (l lasting) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	return l.r.Read(p)
}

// errCut is the error for a file that ends too early.
var errCut = errors.New("it was cut short")

// fail notes the first error.
func (in *input) fail(err error) {
	switch {
	case in.err != nil || err == nil:
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		in.err = fmt.Errorf("%w: it ends at byte %d", errCut, in.off)
	default:
		in.err = err
	}
}

// failf notes the first error.
func (in *input) failf(format string, args ...any) { in.fail(fmt.Errorf(format, args...)) }

// read fills p, with zeros after an error.
func (in *input) read(p []byte) {
	if in.err == nil {
		n, err := io.ReadFull(in.r, p)
		in.off += int64(n)
		in.fail(err)
	}
	if in.err != nil {
		clear(p)
		return
	}
	if in.kept != nil {
		_, err := in.kept.Write(p)
		in.fail(err)
	}
}

// more says whether there is another byte.
func (in *input) more() bool {
	if in.err != nil {
		return false
	}
	_, err := in.r.Peek(1)
	if err != io.EOF {
		in.fail(err)
	}
	return err == nil
}

// skip passes over n bytes; in a file without reading them.
func (in *input) skip(n int64) {
	switch {
	case in.err != nil:
	case n < 0:
		in.failf("a length is negative: %d", n)
	case in.f != nil && n > in.f.size-in.off:
		in.off = in.f.size
		in.fail(io.EOF)
	case in.f != nil && n > int64(in.r.Buffered()) && n > 64<<10:
		in.seek(in.off + n)
	default:
		for n > 0 && in.err == nil {
			if in.ctx != nil && in.ctx.Err() != nil {
				in.fail(in.ctx.Err())
				return
			}
			done, err := in.r.Discard(int(min(n, 1<<20)))
			in.off += int64(done)
			n -= int64(done)
			in.fail(err)
		}
	}
}

func (in *input) u8() uint8 {
	var b [1]byte
	in.read(b[:])
	return b[0]
}

func (in *input) be16() uint16 {
	var b [2]byte
	in.read(b[:])
	return binary.BigEndian.Uint16(b[:])
}

func (in *input) be32() uint32 {
	var b [4]byte
	in.read(b[:])
	return binary.BigEndian.Uint32(b[:])
}

func (in *input) be64() uint64 {
	var b [8]byte
	in.read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// text reads n bytes, at most 255 at once.
func (in *input) text(n uint8) string {
	b := make([]byte, n)
	in.read(b)
	return string(b)
}
