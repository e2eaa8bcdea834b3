package index

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/pack"
)

// Figures of real memory: go test -bench . ./index -image FILE [-image2 LATER]. Without an image
// they are made of synthetic pages, and say so.
var (
	imageFlag  = flag.String("image", "", "memory image for benchmarks")
	image2Flag = flag.String("image2", "", "a later image of the same machine")
)

// benchSource returns an image to import: the one given, or 256 MiB of which half is zero.
func benchSource(b *testing.B) Source {
	b.Helper()
	path := *imageFlag
	if path == "" {
		b.Log("no -image given: synthetic pages")
		path = filepath.Join(b.TempDir(), "memory")
		writeSparse(b, path, randomImage(rand.New(rand.NewPCG(1, 1)), 1<<16).bytes())
	}
	src, err := OpenSource(path)
	if err != nil {
		b.Fatal(err)
	}
	return src
}

func dirSize(b *testing.B, dir string) (apparent int64) {
	err := filepath.Walk(dir, func(_ string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().IsRegular() {
			apparent += st.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return apparent
}

// cpuTime is the processor time of this process: what remains comparable on a busy machine.
func cpuTime(b *testing.B) time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkImport imports an image into an empty store; then, if there is one, a later image of the
// same machine. It tells bytes of image and bytes that are not zero a second, and the size of the
// store, closed, all its files counted.
func BenchmarkImport(b *testing.B) {
	src := benchSource(b)
	for _, p := range []Profile{ProfileDefault, ProfileFast} {
		b.Run(p.String(), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				dir := filepath.Join(b.TempDir(), "store")
				s := openTest(b, dir, nil)
				cpu := cpuTime(b)
				b.StartTimer()
				c, st, err := s.Import(context.Background(), src, ImportOptions{Name: "one", Profile: p})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				b.ReportMetric((cpuTime(b) - cpu).Seconds(), "cpu-s")
				b.ReportMetric(float64(c.MemoryBytes)/st.Seconds/1e6, "image-MB/s")
				b.ReportMetric(float64(c.DataPages)*PageSize/st.Seconds/1e6, "data-MB/s")
				b.ReportMetric(float64(c.StoredBytes), "stored-B")
				importLater(b, s, p)
				s.Close()
				b.ReportMetric(float64(dirSize(b, dir)), "store-B")
				b.StartTimer()
			}
		})
	}
}

func importLater(b *testing.B, s *Store, p Profile) {
	if *image2Flag == "" {
		return
	}
	src, err := OpenSource(*image2Flag)
	if err != nil {
		b.Fatal(err)
	}
	_, st, err := s.Import(context.Background(), src, ImportOptions{Name: "two", Profile: p})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(st.Seconds, "second-s")
	b.ReportMetric(float64(st.StoredBytes), "second-stored-B")
	b.ReportMetric(float64(st.NewPages), "second-pages")
}

// BenchmarkReadPage reads pages at random, as lazy faults do.
func BenchmarkReadPage(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "store"), nil)
	mustImport(b, s, "one", benchSource(b), nil)
	m := openImage(b, s, "one")
	defer m.Close()
	var gfns []uint64
	m.pages.each(func(gfn, _ uint64) { gfns = append(gfns, gfn) })
	r := rand.New(rand.NewPCG(1, 1))
	page := make([]byte, PageSize)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.ReadPage(gfns[r.IntN(len(gfns))], page); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEagerFeed reads a whole image.
func BenchmarkEagerFeed(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "store"), nil)
	c, _ := mustImport(b, s, "one", benchSource(b), nil)
	m := openImage(b, s, "one")
	defer m.Close()
	var p Piece
	b.SetBytes(int64(c.DataPages) * PageSize)
	for b.Loop() {
		feed := m.EagerFeed()
		for i := range feed.Len() {
			if err := ReadPiece(context.Background(), feed, i, &p); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkTiers reads and exports a whole image, all of whose pages are warm, and then cold. cpu-MB/s is by
// the processor time that the process takes.
func BenchmarkTiers(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "store"), nil)
	c, _ := mustImport(b, s, "one", benchSource(b), nil)
	for _, tier := range []pack.Tier{pack.TierWarm, pack.TierCold} {
		retier(b, s, allPacks, func(uint32) pack.Tier { return tier })
		for what, work := range map[string]func(b *testing.B){
			"feed": func(b *testing.B) { benchFeed(b, s) }, "range": func(b *testing.B) { benchRange(b, s) },
			"export": func(b *testing.B) {
				if err := s.Export(b.Context(), "one", filepath.Join(b.TempDir(), "out"), ExportOptions{}); err != nil {
					b.Fatal(err)
				}
			},
		} {
			bytes := int64(c.DataPages) * PageSize
			b.Run(fmt.Sprintf("%s-%d", what, tier), func(b *testing.B) {
				b.SetBytes(bytes)
				before := processorTime(b)
				for b.Loop() {
					work(b)
				}
				took := processorTime(b) - before
				b.ReportMetric(float64(bytes)*float64(b.N)/1e6/took.Seconds(), "cpu-MB/s")
			})
		}
	}
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchFeed(b *testing.B, s *Store) {
	b.Helper()
	m := openImage(b, s, "one")
	defer m.Close()
	var p Piece
	feed := m.EagerFeed()
	for i := range feed.Len() {
		if err := ReadPiece(b.Context(), feed, i, &p); err != nil {
			b.Fatal(err)
		}
	}
}

// benchRange reads stretches of 512 KiB, as for a reader who goes through memory by number.
func benchRange(b *testing.B, s *Store) {
	b.Helper()
	m := openImage(b, s, "one")
	defer m.Close()
	buf := make([]byte, 128*PageSize)
	for gfn := uint64(0); gfn+128 <= m.Pages(); gfn += 128 {
		if err := m.ReadRange(gfn, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// sparseSource is a file of 1 TiB with extents of some pages, evenly spread.
func sparseSource(b *testing.B, extents, pages int) Source {
	b.Helper()
	path := filepath.Join(b.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 1 << 40
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, pages*PageSize)
	for i := range extents {
		for j := range pages {
			fillPage(buf[j*PageSize:(j+1)*PageSize], uint64(1+i*pages+j))
		}
		off := int64(size/extents) * int64(i) / PageSize * PageSize
		if _, err := f.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
	}
	src, err := OpenSource(path)
	if err != nil {
		b.Fatal(err)
	}
	return src
}

// BenchmarkOpenSparse opens a store of 1,000 checkpoints and an image of 1 TiB in it, whose pages
// lie in extents. It tells the time of each and the memory that the image takes.
func BenchmarkOpenSparse(b *testing.B) {
	for _, shape := range []struct{ extents, pages int }{{1024, 256}, {1 << 16, 1}} {
		b.Run(fmt.Sprintf("%dx%d", shape.extents, shape.pages), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "store")
			s := openTest(b, dir, nil)
			mustImport(b, s, "sparse", sparseSource(b, shape.extents, shape.pages), nil)
			r := rand.New(rand.NewPCG(1, 1))
			img := randomImage(r, 64)
			src := Source{Memory: filepath.Join(b.TempDir(), "memory")}
			for i := range 999 {
				img = img.change(r, 1)
				writeSparse(b, src.Memory, img.bytes())
				mustImport(b, s, fmt.Sprint("c", i), src, nil)
			}
			s.Close()
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				start := time.Now()
				s := openTest(b, dir, nil)
				opened := time.Now()
				m := openImage(b, s, "sparse")
				done := time.Now()
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(opened.Sub(start).Microseconds())/1e3, "store-ms")
				b.ReportMetric(float64(done.Sub(opened).Microseconds())/1e3, "image-ms")
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
				m.Close()
				s.Close()
			}
		})
	}
}

// BenchmarkOpenChain opens the last of 1,000 checkpoints of one machine, each a change of the one
// before: its pages lie in 1,000 packs.
func BenchmarkOpenChain(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "store"), nil)
	r := rand.New(rand.NewPCG(1, 1))
	img := randomImage(r, 1<<13)
	src := Source{Memory: filepath.Join(b.TempDir(), "memory")} // one file, again and again
	for i := range 1000 {
		writeSparse(b, src.Memory, img.bytes())
		mustImport(b, s, fmt.Sprint("c", i), src, nil)
		img = img.change(r, 3)
	}
	for b.Loop() {
		openImage(b, s, "c999").Close()
	}
}

// BenchmarkOpenManyCheckpoints opens a store of 1,000 checkpoints, for reading and for writing.
func BenchmarkOpenManyCheckpoints(b *testing.B) {
	dir := b.TempDir() + "/store"
	s := openTest(b, dir, nil)
	img := make([]byte, 64*PageSize)
	for i := range 1000 {
		fillPage(img[:PageSize], uint64(i+1))
		mustImport(b, s, fmt.Sprint("c", i), writeSource(b, img, nil), nil)
	}
	s.Close()
	for name, readOnly := range map[string]bool{"reader": true, "writer": false} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s, err := Open(b.Context(), dir, OpenOptions{ReadOnly: readOnly})
				if err != nil {
					b.Fatal(err)
				}
				if list, err := s.List(b.Context()); err != nil || len(list) != 1000 {
					b.Fatal(len(list), err)
				}
				s.Close()
			}
		})
	}
}
