package pack

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/thawfs/thaw/index/blob"
)

var imageFlag = flag.String("image", "", "guest memory image for benchmarks (default: synthetic)")

// benchPages returns what a store would keep of the image: its pages in physical order, without zero
// pages and without duplicates.
func benchPages(b *testing.B) [][]byte {
	b.Helper()
	if *imageFlag == "" {
		b.Log("no -image: synthetic pages, whose figures say little about guest memory")
		rng := rand.New(rand.NewPCG(1, 1))
		pages := make([][]byte, 4096)
		for i := range pages {
			pages[i] = testPage(rng)
		}
		return pages
	}
	image, err := os.ReadFile(*imageFlag)
	if err != nil {
		b.Fatal(err)
	}
	hasher := NewHasher(HashKey{})
	seen := make(map[Hash]bool)
	var pages [][]byte
	zero := make([]byte, PageSize)
	for p := range slices.Chunk(image[:len(image)/PageSize*PageSize], PageSize) {
		if h := hasher.Sum(p); !seen[h] && !bytes.Equal(p, zero) {
			seen[h] = true
			pages = append(pages, p)
		}
	}
	return pages
}

// benchPack writes all pages into a pack in a directory and gives a reader of it, with the time
// that encoding took.
func benchPack(b *testing.B, t tuning, perBlock int, pages [][]byte) (*Reader, time.Duration) {
	b.Helper()
	ctx := context.Background()
	store, err := blob.OpenDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	bw, err := store.Create(ctx, Name(1, 0))
	if err != nil {
		b.Fatal(err)
	}
	w, err := NewWriter(bw, 1, 0)
	if err != nil {
		b.Fatal(err)
	}
	enc := &Encoder{tuning: t}
	var eb EncodedBlock
	var encoding time.Duration
	hashes := make([]Hash, perBlock)
	for block := range slices.Chunk(pages, perBlock) {
		start := time.Now()
		if err := enc.EncodeBlock(&eb, block); err != nil {
			b.Fatal(err)
		}
		encoding += time.Since(start)
		if _, err := w.AppendBlock(&eb, hashes[:len(block)]); err != nil {
			b.Fatal(err)
		}
	}
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
	r, err := Open(obj, Name(1, 0), dec)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close(); dec.Close() })
	return r, encoding
}

// BenchmarkCodec is what the choices in tuning.go were made by: for each way to store pages the
// bytes per page (checksums, directory and hashes included), the speed of encoding on one core, and
// the time of ReadPage of a random page with the pack in the page cache.
//
//	go test -run - -bench Codec -benchtime 50000x ./index/pack -image FILE
func BenchmarkCodec(b *testing.B) {
	pages := benchPages(b)
	type candidate struct {
		name string
		tuning
	}
	var all []candidate
	for _, l := range benchLimits {
		for _, level := range []zstd.EncoderLevel{
			zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression,
		} {
			all = append(all, candidate{fmt.Sprintf("zstd-%v/%s", level, l.name),
				tuning{codec: codecZstd, level: level, limits: l.limits}})
		}
		all = append(all, candidate{"s2/" + l.name,
			tuning{codec: codecS2, level: zstd.SpeedFastest, s2: s2.Encode, limits: l.limits}})
		all = append(all, candidate{"s2-better/" + l.name,
			tuning{codec: codecS2, level: zstd.SpeedFastest, s2: s2.EncodeBetter,
				limits: l.limits}})
	}
	for _, level := range []lz4.CompressionLevel{lz4.Fast, lz4.Level1, lz4.Level9} {
		all = append(all, candidate{fmt.Sprintf("lz4-%v/4K", level),
			tuning{codec: codecLZ4, level: zstd.SpeedFastest, lz4: level}})
	}
	for _, c := range all {
		c.frameLevel = zstd.SpeedFastest
		b.Run(c.name, func(b *testing.B) { benchReadPage(b, c.tuning, pages) })
	}
}

// benchLimits are the units tried: always of one size, or larger where they compress to so many
// bytes at most (of 2, 4 and 8 pages).
var benchLimits = []struct {
	name   string
	limits [3]int
}{
	{"4K", [3]int{}},
	{"8K", [3]int{maxUnitPages * PageSize, 0, 0}},
	{"16K", [3]int{maxUnitPages * PageSize, maxUnitPages * PageSize, 0}},
	{"1024,512", [3]int{1024, 512, 0}},
	{"1536,1024,512", [3]int{1536, 1024, 512}},
	{"2048,1536,1024", [3]int{2048, 1536, 1024}},
}

func benchReadPage(b *testing.B, t tuning, pages [][]byte) {
	r, encoding := benchPack(b, t, BlockPages, pages)
	rng := rand.New(rand.NewPCG(3, 4))
	dst := make([]byte, PageSize)
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		slot := rng.IntN(len(pages))
		start := time.Now()
		if err := r.ReadPage(uint32(slot), dst); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	us := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))]) / 1e3 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(r.Size())/float64(len(pages)), "B/page")
	b.ReportMetric(float64(len(pages))*PageSize/1e6/encoding.Seconds(), "encMB/s")
	b.ReportMetric(us(0.5), "p50us")
	b.ReportMetric(us(0.9), "p90us")
	b.ReportMetric(us(0.99), "p99us")
}

// BenchmarkBlock shows what a block of so many pages costs: the time of ReadSlots, with the pack in
// the page cache, for all of it and for each page.
//
//	go test -run - -bench Block -benchtime 5000x ./index/pack -image FILE
func BenchmarkBlock(b *testing.B) {
	pages := benchPages(b)
	for _, profile := range []Profile{ProfileDefault, ProfileFast} {
		for _, per := range []int{4, 8, 16, 32, 64} {
			b.Run(fmt.Sprintf("%v/%d", profile, per), func(b *testing.B) {
				r, _ := benchPack(b, tunings[profile], per, pages)
				rng := rand.New(rand.NewPCG(3, 4))
				dst := make([]byte, per*PageSize)
				var bad BadSlots
				start, read := time.Now(), 0
				for b.Loop() {
					block := rng.IntN(r.Blocks() - 1) // the last one may be short
					read += r.BlockBytes(block)
					first, n := r.BlockSlots(block)
					if r.ReadSlots(first, dst[:int(n)*PageSize], &bad); len(bad.Slots()) > 0 {
						b.Fatal(bad.Slots())
					}
				}
				each := float64(time.Since(start)) / 1e3 / float64(b.N)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(each, "us/block")
				b.ReportMetric(each/float64(per), "us/page")
				b.ReportMetric(float64(read)/float64(b.N), "B/block")
			})
		}
	}
}
