package pack

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// Decoder holds what readers share: decompressors and buffers. One serves all packs of a store, and
// any number of goroutines.
type Decoder struct {
	// A zstd.Decoder is a fixed number of decompressors, and a caller waits for a free one. Units
	// have more of them than there can be threads running, and do not share them with frames: a
	// page that a machine waits for must not queue behind a megabyte that is prefetched.
	units   *zstd.Decoder
	frames  *zstd.Decoder
	scratch sync.Pool // of *decoderScratch

	clusters atomic.Uint64 // how many were decoded
}

// NewDecoder makes a Decoder. Close it after the last reader that uses it.
func NewDecoder() (*Decoder, error) {
	d := &Decoder{}
	for z, n := range map[**zstd.Decoder]int{
		&d.units: 4 * runtime.GOMAXPROCS(0), &d.frames: runtime.GOMAXPROCS(0),
	} {
		var err error
		*z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(n), zstd.IgnoreChecksum(true),
			zstd.WithDecoderMaxMemory(maxRecord), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return nil, fmt.Errorf("make zstd decoder: %w", err)
		}
	}
	return d, nil
}

// Clusters is how many clusters were decoded so far.
func (d *Decoder) Clusters() uint64 { return d.clusters.Load() }

// Close frees the decompressors.
func (d *Decoder) Close() {
	d.units.Close()
	d.frames.Close()
}

// decoderScratch is what one read needs.
type decoderScratch struct {
	in   []byte // stored bytes, with zstdPrefix bytes of room before each decoded item
	unit []byte // decoded unit, where only a part of it was asked for
	// decoded cluster; made when there is one
	pages []byte
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

// grown returns b with room for n bytes, its content lost.
func grown(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
