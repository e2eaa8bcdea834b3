package perf

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/image"
)

// stores are the imported images.
type stores struct{ normal, fast string }

type importReply struct {
	Stats struct {
		MemoryBytes int64   `json:"memory_bytes"`
		Seconds     float64 `json:"seconds"`
	} `json:"stats"`
}

// measureStore imports the image by both profiles and its successor, and measures time and size.
func (b *bench) measureStore() stores {
	s := stores{filepath.Join(b.dir, "store"), filepath.Join(b.dir, "fast")}
	b.measureImport()
	cli.OK(b.t, "import", s.normal, b.image, "--name", "vm")
	cli.OK(b.t, "import", s.fast, b.image, "--name", "vm", "--profile", "fast")
	first := diskBytes(b.t, s.normal)
	if peer := b.zstd(b.image); peer > 0 {
		mib := func(n int64) []float64 { return []float64{float64(n) / (1 << 20)} }
		b.add("stored size, whole image", "MiB", mib(first), mib(peer), 1.4,
			"as imported: 1.05 is for what is made small later; peer: zstd -3 of the image")
		b.add("stored size, --profile fast", "MiB", mib(diskBytes(b.t, s.fast)), mib(peer), 1.4, "")
		cli.OK(b.t, "import", s.normal, b.second, "--name", "second")
		changed, n := b.changedPages()
		b.add("second checkpoint", "MiB", mib(diskBytes(b.t, s.normal)-first), mib(b.zstd(changed)), 1.1,
			"peer: zstd -3 of its "+strconv.Itoa(n)+" changed pages")
	}
	return s
}

func (b *bench) measureImport() {
	var all, nonZero, perCPU []float64
	for range min(b.rounds, 5) {
		store := filepath.Join(b.dir, "import")
		start := time.Now()
		result := cli.OK(b.t, "import", store, b.image, "--name", "vm", "--json")
		seconds := time.Since(start).Seconds()
		var r importReply
		if err := json.Unmarshal([]byte(result.Stdout), &r); err != nil {
			b.t.Fatal(err)
		}
		all = append(all, float64(r.Stats.MemoryBytes)/1e6/seconds)
		perCPU = append(perCPU, float64(r.Stats.MemoryBytes)/1e6/result.CPU.Seconds())
		nonZero = append(nonZero, float64(len(b.data)*image.PageSize)/1e6/seconds)
		if err := os.RemoveAll(store); err != nil {
			b.t.Fatal(err)
		}
	}
	b.add("import, image bytes", "MB/s", all, []float64{1000}, 0, "target 1000; the whole command")
	b.add("import, bytes that are not zero", "MB/s", nonZero, []float64{500}, 0, "target 500")
	b.add("import, image bytes a CPU second", "MB/s", perCPU, []float64{500}, 0,
		"half of the target on 2 cores; free of other load")
}

// diskBytes is what a file, or all files below a directory, take on disk. Badger preallocates sparse files
// while it is open and after a crash, so what counts is what is allocated, or the length where that is less.
func diskBytes(t *testing.T, path string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size := info.Size()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			size = min(size, st.Blocks*512)
		}
		sum += size
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// zstd returns the size that the zstd program compresses a file to; 0 where there is no zstd.
func (b *bench) zstd(path string) int64 {
	out, err := cli.Tool(b.t, 5*time.Minute, "sh", "-c", `zstd -3 -q -c "$0" | wc -c`, path)
	if err != nil {
		b.t.Logf("no figure of zstd: %v", err)
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// changedPages writes the pages of the second image that differ from the first's to a file.
func (b *bench) changedPages() (path string, n int) {
	one, err := os.ReadFile(b.image)
	if err != nil {
		b.t.Fatal(err)
	}
	two, err := os.ReadFile(b.second)
	if err != nil {
		b.t.Fatal(err)
	}
	var changed []byte
	for off := 0; off < len(two); off += image.PageSize {
		if off >= len(one) || string(one[off:off+image.PageSize]) != string(two[off:off+image.PageSize]) {
			changed = append(changed, two[off:off+image.PageSize]...)
			n++
		}
	}
	path = filepath.Join(b.dir, "changed")
	if err := os.WriteFile(path, changed, 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path, n
}
