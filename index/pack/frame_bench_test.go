package pack

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/thawfs/thaw/tests/blobtest"
)

// BenchmarkFrame is what the size and codec of a segment's frames were chosen by: stored bytes per
// page, encoding speed on one core, and how fast 100 MiB of pages come out of a pack in the page
// cache with one and with two goroutines. The disk that the segment competes with gives 1.4 GB/s of
// raw pages.
//
//	go test -run - -bench Frame -benchtime 3x ./index/pack -image FILE
func BenchmarkFrame(b *testing.B) {
	pages := benchPages(b)
	pages = pages[:min(len(pages), 100<<20/PageSize)]
	for name, t := range map[string]tuning{
		"lz4":          {frameCodec: codecLZ4, frameLevel: zstd.SpeedFastest},
		"s2":           {frameCodec: codecS2, frameLevel: zstd.SpeedFastest},
		"zstd-fastest": {frameCodec: codecFrame, frameLevel: zstd.SpeedFastest},
		"zstd-default": {frameCodec: codecFrame, frameLevel: zstd.SpeedDefault},
	} {
		t.level = zstd.SpeedFastest // for units, of which there are none
		for _, size := range []int{256 << 10, 512 << 10, 1 << 20, 2 << 20} {
			b.Run(fmt.Sprintf("%s/%dK", name, size>>10), func(b *testing.B) {
				benchFrames(b, t, pages, size/PageSize)
			})
		}
	}
}

func benchFrames(b *testing.B, t tuning, pages [][]byte, per int) {
	ctx := context.Background()
	store := blobtest.NewMem()
	bw, err := store.Create(ctx, Name(1, 0))
	if err != nil {
		b.Fatal(err)
	}
	w, err := NewWriter(bw, 1, 0)
	if err != nil {
		b.Fatal(err)
	}
	enc := &Encoder{tuning: t}
	var ef EncodedFrame
	start := time.Now()
	gfn := uint64(0)
	for frame := range slices.Chunk(pages, per) {
		gfns := make([]uint64, len(frame))
		for i := range gfns {
			gfns[i] = gfn
			gfn++
		}
		if err := enc.EncodeFrame(&ef, gfns, frame); err != nil {
			b.Fatal(err)
		}
		if _, err := w.AppendFrame(&ef); err != nil {
			b.Fatal(err)
		}
	}
	encoding := time.Since(start)
	if _, err := w.Finish(); err != nil {
		b.Fatal(err)
	}
	obj, err := store.Open(ctx, Name(1, 0))
	if err != nil {
		b.Fatal(err)
	}
	dec, err := NewDecoder()
	if err != nil {
		b.Fatal(err)
	}
	defer dec.Close()
	r, err := Open(obj, Name(1, 0), dec)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	size := float64(len(pages)) * PageSize / 1e6
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(r.Size())/float64(len(pages)), "B/page")
	b.ReportMetric(size/encoding.Seconds(), "encMB/s")
	for _, goroutines := range []int{1, 2} {
		best := time.Duration(1 << 62)
		for range b.N {
			best = min(best, readFrames(b, r, goroutines))
		}
		b.ReportMetric(size/best.Seconds(), fmt.Sprintf("decMB/s@%d", goroutines))
	}
}

func readFrames(b *testing.B, r *Reader, goroutines int) time.Duration {
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range goroutines {
		wg.Go(func() {
			var f Frame
			for i := int(next.Add(1)) - 1; i < r.Frames(); i = int(next.Add(1)) - 1 {
				if err := r.ReadFrame(i, &f); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}
