package ram

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkCheckpointMemory measures the steps of a checkpoint of 1 GiB of memory, without a guest; the
// pause of a guest is copy, mark and remap. First for a machine that was started, then for the same
// machine after its remap, with 4 % of its pages changed.
func BenchmarkCheckpointMemory(b *testing.B) {
	const size = 1 << 30
	for b.Loop() {
		b.StopTimer()
		mem, err := New(size)
		if err != nil {
			b.Fatal(err)
		}
		change(b, mem, 1)
		b.StartTimer()
		checkpointMemory(b, mem, "first", false)
		change(b, mem, 25)
		checkpointMemory(b, mem, "again", false)
		change(b, mem, 25)
		checkpointMemory(b, mem, "diff", true)
		if err := mem.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// change writes every nth page.
func change(b *testing.B, mem *Memory, n uint64) {
	b.Helper()
	page := make([]byte, pageSize)
	for i := range page {
		page[i] = byte(i)
	}
	for gfn := uint64(0); gfn < mem.size/pageSize; gfn += n {
		binary.LittleEndian.PutUint64(page, gfn*7)
		if _, err := mem.WriteAt(page, int64(gfn*pageSize)); err != nil {
			b.Fatal(err)
		}
	}
}

func checkpointMemory(b *testing.B, mem *Memory, name string, diff bool) {
	b.Helper()
	step := func(what string, f func() error) {
		begin, cpu := time.Now(), cpuTime(b)
		if err := f(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(begin).Microseconds())/1000, name+"-"+what+"-ms")
		b.ReportMetric(float64((cpuTime(b)-cpu).Microseconds())/1000, name+"-"+what+"-cpu-ms")
	}
	dir := b.TempDir()
	f, err := os.Create(filepath.Join(dir, "memory"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if !diff {
		// The page cache's pages are the host's already: what a first touch costs under a hypervisor is
		// its business.
		if _, err := mem.CopyTo(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
	runs := []PageRun{{0, mem.size / pageSize}}
	step("copy", func() (err error) {
		if diff {
			runs, _, err = mem.CopyChanged(b.Context(), f, 1<<20)
		} else {
			_, err = mem.CopyTo(b.Context(), f)
		}
		return err
	})
	step("mark", mem.Mark)
	step("sync", f.Sync)
	var unused Files
	step("remap", func() (err error) {
		file, err := os.Open(f.Name())
		if err == nil {
			_, unused, err = mem.Remap(file, runs, Base{Dir: dir}, MaxRemap)
		}
		return err
	})
	step("free", func() error { return unused.Close() })
}

// cpuTime returns the CPU time of the process, the better measure on a busy host.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMapImage is the part of a restore that depends on the size of memory: opening, mapping,
// arming, and asking what is in the page cache. Cold: nothing is; warm: everything.
func BenchmarkMapImage(b *testing.B) {
	for _, size := range []int64{128 << 20, 1 << 30, 8 << 30} {
		dir := b.TempDir()
		path := filepath.Join(dir, "memory")
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			b.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			b.Fatal(err)
		}
		for _, cache := range []string{"cold", "warm"} {
			b.Run(fmt.Sprintf("%dMiB/%s", size>>20, cache), func(b *testing.B) {
				setCache(b, path, cache == "warm")
				for b.Loop() {
					m := mapFileOf(b, dir)
					if _, err := m.Resident(); err != nil {
						b.Fatal(err)
					}
					if err := m.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		setCache(b, path, false)
	}
}

// setCache loads a file into the page cache, or evicts it.
func setCache(b *testing.B, path string, full bool) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, copyChunk)
	for full {
		if n, _ := f.Read(buf); n == 0 {
			return
		}
	}
}
