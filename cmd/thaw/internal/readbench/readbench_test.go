package readbench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPermutation(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []uint64{1, 2, 3, 4, 5, 7, 16, 17, 100, 1023, 1024, 1025, 5000} {
		p := newPermutation(rng, n)
		seen := make([]bool, n)
		for i := range n {
			x := p.at(i)
			if x >= n || seen[x] {
				t.Fatalf("n %d: %d is out of range or there twice", n, x)
			}
			seen[x] = true
		}
	}
	// It is no identity: about one number in n stays in its place.
	p, fixed := newPermutation(rng, 10_000), 0
	for i := range uint64(10_000) {
		if p.at(i) == i {
			fixed++
		}
	}
	if fixed > 20 {
		t.Errorf("%d of 10,000 numbers in their place", fixed)
	}
}

func TestPatterns(t *testing.T) {
	const n = 1000
	count := func(rw string, job, draws int) map[uint64]int {
		p := newPattern(&Config{RW: rw, ZipfTheta: 1.2, Seed: 7}, n, job)
		hits := map[uint64]int{}
		for range draws {
			hits[p.next()]++
		}
		return hits
	}
	for _, rw := range []string{Read, RandRead} {
		for block, k := range count(rw, 0, 3*n) {
			if k != 3 || block >= n {
				t.Fatalf("%s: block %d comes %d times in 3 rounds", rw, block, k)
			}
		}
	}
	hits := count(Zipf, 0, 100*n)
	var all []int
	for block, k := range hits {
		if block >= n {
			t.Fatal("block", block)
		}
		all = append(all, k)
	}
	slices.Sort(all)
	top := 0
	for _, k := range all[len(all)-10:] {
		top += k
	}
	if top < 100*n/2 || len(all) < n/2 {
		t.Errorf("zipf: the ten most frequent have %d of %d, %d blocks were seen", top, 100*n, len(all))
	}
	order := func(job int) (o []uint64) {
		p := newPattern(&Config{RW: RandRead, Seed: 7}, n, job)
		for range n {
			o = append(o, p.next())
		}
		return o
	}
	if !slices.Equal(order(1), order(1)) || slices.Equal(order(1), order(2)) {
		t.Error("the order is not that of seed and job")
	}
}

func TestHistogram(t *testing.T) {
	for d := range time.Duration(1 << 20) {
		i := bucketOf(d)
		if end := bucketEnd(i); end < d || float64(end) > float64(d)*1.016+1 || bucketOf(end) != i {
			t.Fatalf("%d falls into bucket %d, which ends at %d", d, i, end)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var h, a, b Histogram
	if i := bucketOf(math.MaxInt64); i >= len(h.buckets) || bucketEnd(i) != math.MaxInt64 {
		t.Error("the longest duration has bucket", i)
	}
	var all []time.Duration
	for i := range 10_000 {
		d := time.Duration(math.Exp(rng.Float64() * 20))
		all = append(all, d)
		h.Add(d)
		[]*Histogram{&a, &b}[i%2].Add(d)
	}
	a.Merge(&b)
	a.Merge(&Histogram{})
	if a != h {
		t.Error("two halves are not the whole")
	}
	slices.Sort(all)
	for _, p := range []float64{0, 1, 50, 90, 99, 99.9, 100} {
		want := all[max(int(math.Ceil(p/100*float64(len(all))))-1, 0)]
		if got := h.Percentile(p); got < want || float64(got) > float64(want)*1.016+1 {
			t.Errorf("p%v = %v, want %v", p, got, want)
		}
	}
	if h.Min() != all[0] || h.Max() != all[len(all)-1] || h.Count() != 10_000 {
		t.Error("min, max, count")
	}
	var none Histogram
	if none.Percentile(50) != 0 || none.Mean() != 0 {
		t.Error("percentiles of nothing")
	}
}

// image writes a file of random bytes.
func image(t *testing.T, size int, seed uint64) string {
	t.Helper()
	data := make([]byte, size)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	path := filepath.Join(t.TempDir(), fmt.Sprint("image-", seed))
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunEveryPatternAndEngine(t *testing.T) {
	const size = 300<<10 + 123 // no multiple of anything
	file, source := image(t, size, 1), image(t, size, 1)
	for _, rw := range []string{Read, RandRead, Zipf} {
		for _, engine := range []string{Mmap, Psync} {
			for _, bs := range []int{4096, 12 << 10, 1 << 20} {
				t.Run(fmt.Sprintf("%s-%s-%d", rw, engine, bs), func(t *testing.T) {
					r, err := Run(t.Context(), Config{
						File: file, RW: rw, BS: bs, Engine: engine, NumJobs: 2, IODepth: 2,
						ZipfTheta: 1.2, VerifyFile: source,
					})
					if err != nil {
						t.Fatal(err)
					}
					blocks := uint64((size + bs - 1) / bs)
					if rw != Zipf && (r.Blocks != 2*blocks || r.Bytes != 2*size) {
						t.Errorf("%d blocks, %d bytes", r.Blocks, r.Bytes)
					}
					if r.Bytes < 2*size || r.Verified != r.Blocks || r.Mismatches != 0 ||
						r.Latency.Count() != r.Blocks || r.FileSize != size {
						t.Errorf("%d bytes, %d blocks, %d verified, %d bad, %d timed",
							r.Bytes, r.Blocks, r.Verified, r.Mismatches, r.Latency.Count())
					}
				})
			}
		}
	}
}

func TestRunFindsWrongBytes(t *testing.T) {
	const size = 64 << 12
	file, source := image(t, size, 1), image(t, size, 1)
	data, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	data[5*4096+77] ^= 1
	data[9*4096] ^= 1
	data[9*4096+1] ^= 1
	if err := os.WriteFile(source, data, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, engine := range []string{Mmap, Psync} {
		r, err := Run(t.Context(), Config{File: file, RW: Read, BS: 4096, Engine: engine, NumJobs: 1,
			IODepth: 1, VerifyFile: source})
		if err != nil {
			t.Fatal(err)
		}
		if r.Mismatches != 2 || !slices.Equal(r.BadAt, []int64{5*4096 + 77, 9 * 4096}) {
			t.Errorf("%s: %d mismatches at %v", engine, r.Mismatches, r.BadAt)
		}
	}
}

func TestRunPart(t *testing.T) {
	const size = 100 << 12
	file, source := image(t, size, 1), image(t, size, 1)
	r, err := Run(t.Context(), Config{File: file, RW: RandRead, BS: 4096, Engine: Mmap, NumJobs: 1,
		IODepth: 1, Offset: 90 << 12, Size: 50 << 12, IOSize: 25 << 12, VerifyFile: source})
	if err != nil || r.Blocks != 25 || r.Verified != 25 || r.Mismatches != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A page that cannot be had is an error, not a crash: here one that a shorter file no longer has.
func TestRunFaultIsAnError(t *testing.T) {
	file := image(t, 64<<12, 1)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMapping(f, 64<<12, AdviceRandom)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if err := os.Truncate(file, 32<<12); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for _, populate := range []bool{m.populate, false} {
		m.populate = populate
		if err := m.read(31<<12, buf); err != nil {
			t.Error(err)
		}
		err := m.read(40<<12, buf)
		var read *ReadError
		if !errors.As(err, &read) || read.Offset != 40<<12 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("populate %v: %v", populate, err)
		}
	}
}

// broken is an engine whose every third block cannot be read.
type broken struct{ n atomic.Int64 }

var errBroken = errors.New("broken")

func (b *broken) read(off int64, _ []byte) error {
	if b.n.Add(1)%3 == 0 {
		return &ReadError{"read", off, errBroken}
	}
	return nil
}
func (b *broken) data(int64, []byte) error { return nil }
func (b *broken) close() error             { return nil }

func TestErrorsEndTheRunOrAreCounted(t *testing.T) {
	for _, goOn := range []bool{false, true} {
		b := &bench{Config: Config{RW: Read, BS: 1, NumJobs: 1, IODepth: 1, ContinueOnError: goOn},
			engine: &broken{}, size: 30}
		r, err := b.jobs(t.Context())
		switch {
		case !goOn && (!errors.Is(err, errBroken) || r.Blocks != 2):
			t.Errorf("%v after %d blocks", err, r.Blocks)
		case goOn && (err != nil || r.Blocks != 20 || r.Errors != 10 ||
			!errors.Is(r.FirstError, errBroken)):
			t.Errorf("%v, %d blocks, %d errors, %v", err, r.Blocks, r.Errors, r.FirstError)
		}
	}
}

func TestRunEnds(t *testing.T) {
	file := image(t, 1<<20, 1)
	c := Config{File: file, RW: Zipf, BS: 4096, Engine: Psync, NumJobs: 2, IODepth: 1, ZipfTheta: 2}
	c.Runtime, c.TimeBased = 50*time.Millisecond, true
	r, err := Run(t.Context(), c)
	if err != nil || r.Elapsed < c.Runtime || r.Blocks == 0 {
		t.Errorf("by its time: %v %v", r.Elapsed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c.Runtime = time.Hour
	c.Progress = func(done, total int64, _ time.Duration) {
		if done > 0 && total == 0 {
			cancel()
		}
	}
	r, err = Run(ctx, c)
	if !errors.Is(err, context.Canceled) || r.Blocks == 0 {
		t.Errorf("by its context: %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	file := image(t, 1<<20, 1)
	good := Config{File: file, RW: Zipf, BS: 4096, Engine: Mmap, NumJobs: 1, IODepth: 1,
		ZipfTheta: 1.2}
	for name, change := range map[string]func(*Config){
		"rw":         func(c *Config) { c.RW = "write" },
		"engine":     func(c *Config) { c.Engine = "libaio" },
		"bs 0":       func(c *Config) { c.BS = 0 },
		"bs for map": func(c *Config) { c.BS = 1000 },
		"bs huge":    func(c *Config) { c.BS = 1 << 30 },
		"jobs":       func(c *Config) { c.NumJobs = 0 },
		"depth":      func(c *Config) { c.IODepth = -1 },
		"offset":     func(c *Config) { c.Offset = 1 << 20 },
		"negative":   func(c *Config) { c.Size = -1 },
		"time-based": func(c *Config) { c.TimeBased = true },
		"theta":      func(c *Config) { c.ZipfTheta = 1 },
		"advice":     func(c *Config) { c.Advice = "often" },
		"directory":  func(c *Config) { c.File = filepath.Dir(file) },
		"source":     func(c *Config) { c.VerifyFile = image(t, 4096, 2) },
	} {
		c := good
		change(&c)
		var bad *ConfigError
		if r, err := Run(t.Context(), c); !errors.As(err, &bad) || r != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := good
	c.File = file + "-not"
	if _, err := Run(t.Context(), c); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	c.File = image(t, 0, 3)
	if _, err := Run(t.Context(), c); err == nil {
		t.Error("an empty file was read")
	}
}
