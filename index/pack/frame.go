package pack

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/pierrec/lz4/v4"
)

const (
	// FrameBytes is how many bytes of pages a frame of a segment should hold.
	FrameBytes = 1 << 20
	// MaxFramePages bounds a frame.
	MaxFramePages = 4096
)

// EncodedFrame is a frame of a segment ready to be appended. It can be used again once it was.
type EncodedFrame struct {
	// Quick, set before EncodeFrame, makes a frame that decodes in less than half of the time and
	// takes a quarter more space.
	Quick bool

	codec codec
	pages int
	data  []byte // u32 length of the gfn list, the list, the compressed pages
	raw   []byte
}

// EncodeFrame makes a frame of pages, each of 4096 bytes and pages[i] being the page with number
// gfns[i]. The gfns must ascend.
func (e *Encoder) EncodeFrame(dst *EncodedFrame, gfns []uint64, pages [][]byte) error {
	if len(gfns) != len(pages) || len(pages) == 0 || len(pages) > MaxFramePages {
		return fmt.Errorf("encode frame of %d pages and %d gfns", len(pages), len(gfns))
	}
	list, err := appendGFNs(nil, gfns)
	if err != nil {
		return err
	}
	dst.raw = dst.raw[:0]
	for _, p := range pages {
		if len(p) != PageSize {
			return fmt.Errorf("encode frame: page of %d bytes", len(p))
		}
		dst.raw = append(dst.raw, p...)
	}
	s, err := e.get()
	if err != nil {
		return err
	}
	defer e.put(s)
	dst.pages = len(pages)
	dst.data = binary.LittleEndian.AppendUint32(dst.data[:0], uint32(len(list)))
	dst.data = append(dst.data, list...)
	start := len(dst.data)
	dst.codec = e.tuning.frameCodec
	if dst.Quick {
		dst.codec = codecLZ4
	}
	if dst.data, err = s.appendFrame(dst.data, dst.codec, dst.raw); err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(dst.data)-start >= len(dst.raw) {
		dst.codec = codecRaw
		dst.data = append(dst.data[:start], dst.raw...)
	}
	return nil
}

// appendFrame appends the pages of a frame as a codec of frames compresses them.
func (s *encoderScratch) appendFrame(dst []byte, c codec, raw []byte) ([]byte, error) {
	switch c {
	case codecLZ4:
		s.out = grown(s.out, lz4.CompressBlockBound(len(raw)))
		n, err := s.quick.CompressBlock(raw, s.out)
		return append(dst, s.out[:n]...), err
	case codecS2:
		s.out = grown(s.out, s2.MaxEncodedLen(len(raw)))
		return append(dst, s2.Encode(s.out, raw)...), nil
	default:
		return s.frame.EncodeAll(raw, dst), nil
	}
}

// appendGFNs writes ascending gfns as runs: gap since the end of the last run, length - 1.
func appendGFNs(b []byte, gfns []uint64) ([]byte, error) {
	var end uint64
	for i := 0; i < len(gfns); {
		j := i + 1
		for j < len(gfns) && gfns[j] == gfns[j-1]+1 {
			j++
		}
		if gfns[i] < end || gfns[i] > maxGFN {
			return nil, fmt.Errorf("encode frame: gfn %d after %d", gfns[i], end)
		}
		b = binary.AppendUvarint(b, gfns[i]-end)
		b = binary.AppendUvarint(b, uint64(j-i-1))
		end = gfns[j-1] + 1
		i = j
	}
	return b, nil
}

// maxGFN bounds guest frame numbers: 2^52 pages are the whole of a 64-bit address space.
const maxGFN = 1<<52 - 1

// parseGFNs is the inverse of appendGFNs: exactly n gfns, appended to dst.
func parseGFNs(dst []uint64, b []byte, n int) ([]uint64, error) {
	var gfn uint64
	for n > 0 {
		gap, i := binary.Uvarint(b)
		if i <= 0 || gap > maxGFN {
			return nil, errDirectory
		}
		count, j := binary.Uvarint(b[i:])
		if j <= 0 || count >= uint64(n) {
			return nil, errDirectory
		}
		b = b[i+j:]
		gfn += gap
		for range count + 1 {
			dst = append(dst, gfn)
			gfn++
		}
		n -= int(count) + 1
		if gfn > maxGFN+1 {
			return nil, errDirectory
		}
	}
	if len(b) != 0 {
		return nil, errDirectory
	}
	return dst, nil
}

// AppendFrame adds a frame and returns its number in the pack.
func (w *Writer) AppendFrame(f *EncodedFrame) (frame int, err error) {
	it := itemEntry{codec: f.codec, raw: uint32(f.pages)}
	return w.appendItem(&w.dir.frames, saltFrame, it, f.data)
}

// FrameInfo describes a frame.
type FrameInfo struct {
	Pages  int
	Offset int64 // in the pack, bytes
	Stored int64 // bytes in the pack
}

// Frames is the number of frames.
func (r *Reader) Frames() int { return len(r.dir.frames) }

// Frame describes frame i.
func (r *Reader) Frame(i int) FrameInfo {
	it := r.dir.frames[i]
	return FrameInfo{Pages: int(it.raw), Offset: int64(it.off), Stored: int64(it.stored)}
}

// Frame is the content of a frame: Pages[i*4096:] is the page with number GFNs[i]. It is meant to
// be used for one frame after another, and keeps its memory.
type Frame struct {
	GFNs  []uint64
	Pages []byte

	r      *Reader
	number int
	in     []byte // as it is stored, behind zstdPrefix bytes of room
}

// ReadFrame reads frame i into f: one read of the blob.
func (r *Reader) ReadFrame(i int, f *Frame) error {
	if err := r.FetchFrame(i, f); err != nil {
		return err
	}
	return f.Decode()
}

// FetchFrame reads what is stored of frame i into f, in one read of the blob. Decode makes the
// pages of it.
func (r *Reader) FetchFrame(i int, f *Frame) error {
	f.GFNs, f.Pages = f.GFNs[:0], f.Pages[:0]
	f.r, f.number = nil, i
	if i < 0 || i >= len(r.dir.frames) {
		return r.corrupt(frameName(i), fmt.Errorf("there are %d", len(r.dir.frames)))
	}
	it := r.dir.frames[i]
	if it.raw > MaxFramePages || it.stored < crcSize+4 {
		return r.corrupt(frameName(i), errDecodedSize)
	}
	f.in = grown(f.in, zstdPrefix+int(it.stored))
	if err := r.read(f.in[zstdPrefix:], int64(it.off)); err != nil {
		return err
	}
	f.r = r
	return nil
}

func frameName(i int) string { return fmt.Sprintf("frame %d", i) }

// Decode decodes a frame that was fetched, once. The pack need not be open any more.
func (f *Frame) Decode() error {
	r := f.r
	if r == nil {
		return fmt.Errorf("decode frame: none was fetched")
	}
	f.r = nil
	it := r.dir.frames[f.number]
	in, err := r.verified(f.in, saltFrame, uint32(f.number))
	if err != nil {
		return r.corrupt(frameName(f.number), err)
	}
	list := in[zstdPrefix:]
	n := binary.LittleEndian.Uint32(list)
	if uint64(n) > uint64(len(list)-4) {
		return r.corrupt(frameName(f.number), errDirectory)
	}
	if f.GFNs, err = parseGFNs(f.GFNs[:0], list[4:4+n], int(it.raw)); err != nil {
		return r.corrupt(frameName(f.number), err)
	}
	f.Pages = grown(f.Pages, int(it.raw)*PageSize)
	if err := r.dec.decode(it.codec, f.Pages, in[4+n:]); err != nil {
		return r.corrupt(frameName(f.number), err)
	}
	return nil
}
