package pack

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// BlockPages is the number of pages that a locality block should have.
const BlockPages = 16

// maxBlockPages is the largest block that EncodeBlock takes.
const maxBlockPages = 1024

// Encoder turns pages into units and frames. It may be used by many goroutines at once, and what it
// gives depends on nothing but its arguments and profile.
type Encoder struct {
	profile Profile
	scratch sync.Pool // of *encoderScratch
}

// NewEncoder makes an Encoder.
func NewEncoder(p Profile) (*Encoder, error) {
	if int(p) >= len(profileNames) {
		return nil, fmt.Errorf("unknown %v", p)
	}
	return &Encoder{profile: p}, nil
}

// encoderScratch is what one encoding needs: compressors, and a place to put pages side by side.
type encoderScratch struct {
	unit  *zstd.Encoder
	frame *zstd.Encoder
	raw   []byte
}

func (e *Encoder) get() (*encoderScratch, error) {
	if s, ok := e.scratch.Get().(*encoderScratch); ok {
		return s, nil
	}
	unit, err := newZstdEncoder(zstd.SpeedDefault, 32<<10)
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	frame, err := newZstdEncoder(zstd.SpeedDefault, 2<<20)
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return &encoderScratch{unit: unit, frame: frame}, nil
}

// encodedUnit is one unit of an EncodedBlock: data[off:end].
type encodedUnit struct {
	codec    codec
	pages    int
	off, end int
}

// EncodedBlock is a block of pages ready to be appended to a pack. It can be used again for another
// block once it was appended.
type EncodedBlock struct {
	pages int
	data  []byte
	units []encodedUnit
}

// Pages is the number of pages in the block.
func (b *EncodedBlock) Pages() int { return b.pages }

// StoredBytes is the number of bytes that the block takes in a pack, its part of the directory and
// its hashes not counted.
func (b *EncodedBlock) StoredBytes() int { return len(b.data) + len(b.units)*crcSize }

// EncodeBlock compresses pages, each of 4096 bytes, into dst, which may be used again afterwards.
// The pages get consecutive slots in this order.
func (e *Encoder) EncodeBlock(dst *EncodedBlock, pages [][]byte) error {
	if len(pages) == 0 || len(pages) > maxBlockPages {
		return fmt.Errorf("encode block of %d pages: want 1 to %d", len(pages), maxBlockPages)
	}
	for _, p := range pages {
		if len(p) != PageSize {
			return fmt.Errorf("encode block: page of %d bytes", len(p))
		}
	}
	s, err := e.get()
	if err != nil {
		return err
	}
	defer e.scratch.Put(s)
	dst.pages, dst.data, dst.units = len(pages), dst.data[:0], dst.units[:0]
	per := e.unitPages()
	for len(pages) > 0 {
		n := min(per, len(pages))
		raw := pages[0]
		if n > 1 {
			s.raw = s.raw[:0]
			for _, p := range pages[:n] {
				s.raw = append(s.raw, p...)
			}
			raw = s.raw
		}
		e.encodeUnit(s, dst, raw, n)
		pages = pages[n:]
	}
	return nil
}

// unitPages is how many pages the encoder puts into one unit.
func (e *Encoder) unitPages() int { return 1 }

// encodeUnit appends one unit to dst: compressed if that saves anything worth a decoding.
func (e *Encoder) encodeUnit(s *encoderScratch, dst *EncodedBlock, raw []byte, pages int) {
	off := len(dst.data)
	c := codecRaw
	worth := len(raw) - len(raw)/16
	if e.profile == ProfileFast {
		dst.data = append(dst.data, make([]byte, s2.MaxEncodedLen(len(raw)))...)
		if b := s2.Encode(dst.data[off:], raw); len(b) < worth {
			c, dst.data = codecS2, dst.data[:off+len(b)]
		}
	} else {
		dst.data = s.unit.EncodeAll(raw, dst.data)
		if body, ok := stripZstd(dst.data[off:], len(raw)); ok && len(body) < worth {
			c = codecZstd
			dst.data = dst.data[:off+copy(dst.data[off:], body)]
		}
	}
	if c == codecRaw {
		dst.data = append(dst.data[:off], raw...)
	}
	dst.units = append(dst.units, encodedUnit{codec: c, pages: pages, off: off, end: len(dst.data)})
}
