package pack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
)

// cpuTime is the processor time that this process has taken.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkTier stores all pages of an image in one tier after the other: the bytes per page (checksums,
// directory and hashes included), the processor time that Rewrite takes for so many bytes of pages, the
// time of ReadPage of a random page with the pack in the page cache, and how many pages such a read could
// bring.
//
//	go test -run - -bench Tier -benchtime 20000x ./index/pack -image FILE
func BenchmarkTier(b *testing.B) {
	pages := benchPages(b)
	tiers := []struct {
		name string
		tier Tier
		clusterTuning
	}{
		{"hot", TierHot, coldClusters}, {"warm", TierWarm, coldClusters}, {"cold", TierCold, coldClusters},
	}
	const byPlace = 1000
	for _, per := range []int{16, 32} {
		for _, level := range []zstd.EncoderLevel{
			zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression,
		} {
			for name, beside := range map[string]int32{"place": byPlace, "content": coldClusters.beside} {
				tiers = append(tiers, struct {
					name string
					tier Tier
					clusterTuning
				}{fmt.Sprintf("cold-%s-%d-%v", name, per, level), TierCold, clusterTuning{per, level, level, beside}})
			}
		}
	}
	for _, c := range tiers {
		b.Run(c.name, func(b *testing.B) {
			r, _ := benchPack(b, tunings[ProfileDefault], BlockPages, pages)
			tuned := tunings[ProfileDefault]
			tuned.cluster = c.clusterTuning
			next, took := benchRewrite(b, r, &Encoder{tuning: tuned}, Keep{
				Tier: func(uint32) Tier { return c.tier }, Hashes: hashesOf(pages),
			})
			benchTier(b, next, len(pages))
			b.ReportMetric(float64(len(pages))*PageSize/1e6/took.Seconds(), "MB/cpu-s")
		})
	}
}

func hashesOf(pages [][]byte) (hashes []Hash) {
	h := NewHasher(HashKey{})
	for _, p := range pages {
		hashes = append(hashes, h.Sum(p))
	}
	return hashes
}

// benchRewrite writes the next generation of a pack into a directory.
func benchRewrite(b *testing.B, r *Reader, enc *Encoder, keep Keep) (next *Reader, took time.Duration) {
	b.Helper()
	ctx := context.Background()
	store, err := blob.OpenDir(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	bw, err := store.Create(ctx, Name(1, 1))
	if err != nil {
		b.Fatal(err)
	}
	w, err := NewWriter(bw, 1, 1)
	if err != nil {
		b.Fatal(err)
	}
	before := cpuTime(b)
	if err := Rewrite(ctx, r, w, enc, HashKey{}, keep); err != nil {
		b.Fatal(err)
	}
	took = cpuTime(b) - before
	if _, err := w.Finish(); err != nil {
		b.Fatal(err)
	}
	obj, err := store.Open(ctx, Name(1, 1))
	if err != nil {
		b.Fatal(err)
	}
	if next, err = Open(obj, Name(1, 1), r.dec); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { next.Close() })
	return next, took
}

func benchTier(b *testing.B, r *Reader, pages int) {
	rng := rand.New(rand.NewPCG(3, 4))
	dst := make([]byte, PageSize)
	took, brought := make([]time.Duration, 0, b.N), 0
	for b.Loop() {
		slot := uint32(rng.IntN(pages))
		start := time.Now()
		if err := r.ReadPage(slot, dst); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
		if c, ok := r.ClusterOf(slot); ok {
			brought += len(r.ClusterSlots(c))
		} else {
			brought++
		}
	}
	slices.Sort(took)
	us := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))]) / 1e3 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(r.Size())/float64(pages), "B/page")
	b.ReportMetric(us(0.5), "p50us")
	b.ReportMetric(us(0.9), "p90us")
	b.ReportMetric(us(0.99), "p99us")
	b.ReportMetric(float64(brought)/float64(len(took)), "pages/read")
}
