package guestmem

import (
	"context"
	"io"
)

// OpenStream recognises a saved machine by the first bytes of a stream. With raw, or if they are those of no
// format, it is a bare memory.
func OpenStream(name string, r io.Reader, raw bool) (*Saved, error) {
	in := newStreamInput(name, r)
	if raw {
		return streamBare(in), nil
	}
	return openStreamAt(in, 0)
}

// openStreamAt is OpenStream of what lies in so many layers of compression.
func openStreamAt(in *input, depth int) (*Saved, error) {
	head, err := in.r.Peek(headBytes)
	if err != nil && err != io.EOF {
		return nil, &FormatError{Path: in.path, Format: "not whole", Why: "its beginning cannot be read", Err: err,
			Do: decompressHint(err)}
	}
	m := recognise(head)
	if m == nil {
		return streamBare(in), nil
	}
	switch m.kind {
	case elfFile:
		return streamELF(in)
	case limeFile:
		return streamLime(in), nil
	case qemuFile:
		return streamQEMU(in)
	case libvirtFile:
		return openLibvirt(in, nil)
	case gzipFile, xzFile, zstdFile, bzip2File, lzopFile:
		return inCompressed(in, m, depth+1)
	}
	return nil, m.refuse(in.path, "FILE")
}

// streamBare is memory byte for byte.
func streamBare(in *input) *Saved {
	return &Saved{Format: "raw", Path: in.path, Saw: "memory byte for byte",
		Stream: streamFunc(func(ctx context.Context, put func(uint64, []byte) error) (End, error) {
			buf := make([]byte, feedBytes)
			at := int64(0)
			for {
				n, err := io.ReadFull(in.r, buf)
				switch {
				case err == nil, err == io.EOF:
				case err == io.ErrUnexpectedEOF && n%PageSize == 0:
					err = io.EOF
				case err == io.ErrUnexpectedEOF:
					return End{}, &FormatError{Path: in.path, Format: "no memory byte for byte",
						Why: "its size is not a multiple of 4096, so it was cut short or is something else"}
				case ctx.Err() != nil:
					return End{}, ctx.Err()
				default:
					return End{}, &FormatError{Path: in.path, Format: "not whole", Why: "it cannot be read", Err: err,
						Do: decompressHint(err)}
				}
				if at+int64(n) > MaxSize {
					return End{}, &FormatError{Path: in.path, Format: "no memory of a machine",
						Why: "it has more than 16 TiB"}
				}
				if n > 0 {
					if perr := put(uint64(at)/PageSize, buf[:n]); perr != nil {
						return End{}, perr
					}
				}
				if at += int64(n); err == io.EOF {
					return End{Size: at}, ctx.Err()
				}
			}
		})}
}
