package guestmem

import (
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// A compressed file cannot be read at random, so what is in it is a Stream.

const (
	// maxWindow bounds the memory that a decompressor takes, in bytes; "xz -9" and "zstd -19" need 64 and 8 MiB.
	maxWindow = 256 << 20
	// maxNested bounds how often a file was compressed.
	maxNested = 3
)

// errWindow is the error for what takes more memory than that.
var errWindow = fmt.Errorf("it needs more than %d MiB of memory", maxWindow>>20)

// decompressor is a reader of what was compressed, and ends it.
type decompressor struct {
	r    io.Reader
	name string
	end  func()
	err  error // of the first read that failed
}

// Read implements io.Reader. A reader of a format cannot tell io.ErrUnexpectedEOF of the decompressor, which
// is damage, from that of io.ReadFull, which may be the end: so it never sees the first as it is. An error
// stays, because a buffer may have swallowed it, and some decompressors are at their end after one.
func (d *decompressor) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.r.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = errWindow
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("decompress by %s: %w", d.name, err)
	}
	d.err = err
	return n, err
}

// Close implements io.Closer.
func (d *decompressor) Close() error {
	d.end()
	return nil
}

// decompress reads what was compressed.
func decompress(k kind, r *bufio.Reader) (*decompressor, error) {
	switch k {
	case gzipFile:
		z, err := gzip.NewReader(r)
		return &decompressor{r: z, name: "gzip", end: func() {}}, err
	case bzip2File:
		return &decompressor{r: bzip2.NewReader(r), name: "bzip2", end: func() {}}, nil
	case lzopFile:
		z, err := newLzopReader(r)
		return &decompressor{r: z, name: "lzop", end: func() {}}, err
	case zstdFile:
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, err
		}
		return &decompressor{r: z, name: "zstd", end: z.Close}, nil
	case xzFile:
		z, err := xz.NewReader(newXZGuard(r))
		return &decompressor{r: z, name: "xz", end: func() {}}, err
	}
	return nil, errors.New("it is not known how to decompress it")
}

// inCompressed recognises what is in a compressed stream.
func inCompressed(in *input, m *magic, depth int) (*Saved, error) {
	bad := &FormatError{Path: in.path, Format: m.format, Why: "it cannot be decompressed"}
	if depth > maxNested {
		bad.Why, bad.Do = "it was compressed again and again", "decompress it first, once at least"
		return nil, bad
	}
	z, err := decompress(m.kind, in.r)
	if err != nil {
		bad.Err, bad.Do = err, decompressHint(err)
		return nil, bad
	}
	inner := newStreamInput(in.path, z)
	s, err := openStreamAt(inner, depth)
	if err != nil {
		z.end()
		return nil, err
	}
	s.keep(z)
	s.Saw = m.format + ": " + s.Saw
	s.Stream = drained(s.Stream, inner)
	return s, nil
}

// decompressHint says what to do about what is not decompressed here though it is not damaged.
func decompressHint(err error) string {
	if errors.Is(err, errWindow) {
		return "let its own program decompress it: zstd -dc --long=31 FILE | thaw import STORE - --name NAME " +
			"(xz -dc likewise)"
	}
	return ""
}

// drained reads a stream to its end: a checksum that the decompressor has comes last. Some bytes of a file
// may become terabytes, so what is passed over looks at the context, too.
func drained(s Stream, in *input) Stream {
	return streamFunc(func(ctx context.Context, put func(uint64, []byte) error) (End, error) {
		in.ctx = ctx
		end, err := s.Read(ctx, put)
		if err != nil {
			return End{}, err
		}
		if _, err := io.Copy(io.Discard, lasting{ctx, in.r}); err != nil {
			return End{}, &FormatError{Path: in.path, Format: "not whole", Err: err,
				Why: "it cannot be read to its end", Do: decompressHint(err)}
		}
		return end, nil
	})
}
