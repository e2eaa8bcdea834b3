package pack

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Decoder holds what readers share: decompressors and buffers. One serves all packs of a store, and
// any number of goroutines.
type Decoder struct {
	zstd    *zstd.Decoder
	scratch sync.Pool // of *decoderScratch
}

// NewDecoder makes a Decoder. Close it after the last reader that uses it.
func NewDecoder() (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.IgnoreChecksum(true), zstd.WithDecoderMaxMemory(maxRecord),
		zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return &Decoder{zstd: z}, nil
}

// Close gives up the decompressors.
func (d *Decoder) Close() { d.zstd.Close() }

// decoderScratch is what one read needs.
type decoderScratch struct {
	in   []byte // stored bytes, with zstdPrefix bytes of room before each decoded item
	unit []byte // decoded unit, where only a part of it was asked for
}

func (d *Decoder) get() *decoderScratch {
	if s, ok := d.scratch.Get().(*decoderScratch); ok {
		return s
	}
	return &decoderScratch{
		in:   make([]byte, zstdPrefix+maxUnitPages*PageSize+crcSize),
		unit: make([]byte, maxUnitPages*PageSize+slack),
	}
}

// grown gives b with room for n bytes, its content lost.
func grown(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
