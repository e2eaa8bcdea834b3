package pack

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// BlockPages is the number of pages that a locality block should have.
const BlockPages = 16

// maxBlockPages is the largest block that EncodeBlock takes.
const maxBlockPages = 1024

// Encoder turns pages into units and frames. It may be used by many goroutines at once, and its
// results depend only on its arguments and profile.
type Encoder struct {
	tuning tuning

	mu sync.Mutex
	// guarded by mu; not a sync.Pool, for a compressor costs megabytes to make
	idle []*encoderScratch
}

// NewEncoder makes an Encoder.
func NewEncoder(p Profile) (*Encoder, error) {
	if int(p) >= len(profileNames) {
		return nil, fmt.Errorf("unknown %v", p)
	}
	return &Encoder{tuning: tunings[p]}, nil
}

// NewHotEncoder makes an Encoder of pages that machines wait for most. Each is decoded in half of the time
// that ProfileFast takes, and in less space. It encodes as slowly as ProfileDefault.
func NewHotEncoder() *Encoder { return &Encoder{tuning: hotTuning} }

// NewImportEncoder makes an Encoder of new pages. An import is to be quick, so its units are those of
// ProfileFast also where the profile takes little space: the pages are made small when they are written again
// (repacking). Frames are the profile's.
func NewImportEncoder(p Profile) (*Encoder, error) {
	e, err := NewEncoder(p)
	if err == nil && p == ProfileDefault {
		fast := tunings[ProfileFast]
		e.tuning.codec, e.tuning.s2, e.tuning.limits = fast.codec, fast.s2, fast.limits
	}
	return e, err
}

// encoderScratch is what one encoding needs: compressors, and a place to put pages side by side.
type encoderScratch struct {
	unit  *zstd.Encoder
	frame *zstd.Encoder
	quick lz4.Compressor   // of frames
	hc    lz4.CompressorHC // of units
	raw   []byte
	out   []byte
}

// get returns scratch memory that nobody else uses, until put.
func (e *Encoder) get() (*encoderScratch, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.idle); n > 0 {
		s := e.idle[n-1]
		e.idle = e.idle[:n-1]
		return s, nil
	}
	unit, err := newZstdEncoder(e.tuning.level, 32<<10, true)
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	frame, err := newZstdEncoder(e.tuning.frameLevel, 2<<20, true)
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	hc := lz4.CompressorHC{Level: e.tuning.lz4}
	return &encoderScratch{unit: unit, frame: frame, hc: hc}, nil
}

func (e *Encoder) put(s *encoderScratch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.idle = append(e.idle, s)
}

// lz4Block compresses raw into s.out; 0 or an error if it does not fit.
func (t *tuning) lz4Block(s *encoderScratch, raw []byte) (int, error) {
	if t.lz4 == lz4.Fast {
		return s.quick.CompressBlock(raw, s.out)
	}
	return s.hc.CompressBlock(raw, s.out)
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
	defer e.put(s)
	dst.pages, dst.data, dst.units = len(pages), dst.data[:0], dst.units[:0]
	e.encodeUnits(s, dst, pages)
	return nil
}

// encodeUnits appends units of pages that lie side by side to dst.
func (e *Encoder) encodeUnits(s *encoderScratch, dst *EncodedBlock, pages [][]byte) {
	for n := 1; len(pages) > 0; {
		n = min(n, len(pages))
		used, size := e.encodeUnit(s, dst, pages[:n])
		pages = pages[used:]
		n = e.tuning.next(size / used)
	}
	if e.tuning.codec == codecS2 {
		s.out = nil // it is in dst
	}
}

// encodeUnit appends one unit to dst, of all the pages or, if they do not compress well enough for
// the larger unit, of some of the first. It returns how many, and the bytes of the unit.
func (e *Encoder) encodeUnit(
	s *encoderScratch, dst *EncodedBlock, pages [][]byte,
) (used, size int) {
	raw := pages[0]
	if len(pages) > 1 {
		s.raw = s.raw[:0]
		for _, p := range pages {
			s.raw = append(s.raw, p...)
		}
		raw = s.raw
	}
	n := len(pages)
	var c codec
	var data []byte
	for {
		raw = raw[:n*PageSize]
		if e.tuning.codec == codecS2 {
			s.out = dst.room(s2.MaxEncodedLen(len(raw))) // where it is wanted
		}
		c, data = e.compress(s, raw)
		if n == 1 || len(data) <= e.tuning.limit(n) {
			break
		}
		n /= 2
	}
	dst.add(c, n, data)
	return n, len(data)
}

// compress returns raw as the encoder would store it: compressed if that saves enough to be worth a
// decoding. The bytes are valid until s is used again.
func (e *Encoder) compress(s *encoderScratch, raw []byte) (codec, []byte) {
	worth := len(raw) - len(raw)/16
	if e.tuning.codec == codecLZ4 {
		s.out = grown(s.out, worth)
		if n, err := e.tuning.lz4Block(s, raw); err == nil && n > 0 {
			return codecLZ4, s.out[:n]
		}
		return codecRaw, raw
	}
	if e.tuning.codec == codecS2 {
		s.out = grown(s.out, s2.MaxEncodedLen(len(raw)))
		b := e.tuning.s2(s.out, raw)
		if len(b) < worth {
			return codecS2, b
		}
		return codecRaw, raw
	}
	s.out = s.unit.EncodeAll(raw, s.out[:0])
	if body, ok := stripZstd(s.out, len(raw)); ok && len(body) < worth {
		return codecZstd, body
	}
	return codecRaw, raw
}
