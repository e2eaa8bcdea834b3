package perf

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/image"
)

// TestImport measures an import into a new store beside what else may be done with an image: `zstd -3
// -T2`, `zstd -1 -T2`, and cp, whose output is synced as a store is. The image is in the page cache,
// the output on one disk. It asserts nothing about the figures.
//
//	go test ./tests/perf -run 'TestImport$' -v -perf [-image FILE]
func TestImport(t *testing.T) {
	b := importBench{t: t, dir: t.TempDir(), image: *imageFlag, rounds: 5}
	spec := image.Spec{Pages: 128 << 10, Seed: 1}
	if !*full {
		spec.Pages, b.rounds, b.image = 4<<10, 1, ""
	}
	if b.image == "" {
		b.image = filepath.Join(b.dir, "image.mem")
		if err := spec.Write(b.image); err != nil {
			t.Fatal(err)
		}
	}
	b.warm()
	for range b.rounds {
		b.thaw("thaw import")
		b.zstd("zstd -3 -T2", "-3")
		b.thaw("thaw import --profile fast", "--profile", "fast")
		b.zstd("zstd -1 -T2", "-1")
		b.peer("cp", "cp")
	}
	b.print()
}

type importBench struct {
	t          *testing.T
	dir, image string
	rounds     int
	bytes      int64 // of the image
	nonZero    int64 // pages
	rows       []*importRow
}

// importRow is one way, with a value for each round.
type importRow struct {
	name    string
	seconds []float64
	cpu     []float64
	size    int64
}

func (b *importBench) row(name string) *importRow {
	for _, r := range b.rows {
		if r.name == name {
			return r
		}
	}
	b.rows = append(b.rows, &importRow{name: name})
	return b.rows[len(b.rows)-1]
}

// warm reads the image, and finds out what is in it.
func (b *importBench) warm() {
	f, err := os.Open(b.image)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	page, zero := make([]byte, image.PageSize), string(make([]byte, image.PageSize))
	for {
		n, err := io.ReadFull(f, page)
		if err == io.EOF {
			return
		}
		if err != nil {
			b.t.Fatal(err)
		}
		b.bytes += int64(n)
		if string(page) != zero {
			b.nonZero++
		}
	}
}

// thaw imports the image by the command into a store that is not there yet.
func (b *importBench) thaw(name string, flags ...string) {
	b.t.Helper()
	store := filepath.Join(b.dir, "store")
	start := time.Now()
	result := cli.OK(b.t, append([]string{"import", store, b.image, "--name", "vm", "--json"}, flags...)...)
	r := b.row(name)
	r.seconds = append(r.seconds, time.Since(start).Seconds())
	r.cpu = append(r.cpu, result.CPU.Seconds())
	var reply struct {
		Stats struct {
			NewPages  int64 `json:"new_pages"`
			DupPages  int64 `json:"duplicate_pages"`
			ZeroPages int64 `json:"zero_pages"`
		} `json:"stats"`
	}
	if err := json.Unmarshal([]byte(result.Stdout), &reply); err != nil {
		b.t.Fatal(err)
	}
	if st := reply.Stats; st.NewPages+st.DupPages != b.nonZero {
		b.t.Fatalf("%+v were imported, the image has %d pages that are not zero", st, b.nonZero)
	}
	r.size = diskBytes(b.t, store)
	if err := os.RemoveAll(store); err != nil {
		b.t.Fatal(err)
	}
}

func (b *importBench) zstd(name, level string) {
	b.t.Helper()
	b.peer(name, "zstd", level, "-T2", "-q", "-f", "-o")
}

// peer runs a program that writes a file of the image, and syncs that.
func (b *importBench) peer(name, program string, flags ...string) {
	b.t.Helper()
	out := filepath.Join(b.dir, "peer.out")
	args := append(flags, b.image, out)
	if len(flags) > 0 {
		args = append(flags, out, b.image) // -o comes last
	}
	start := time.Now()
	if _, err := cli.Tool(b.t, 10*time.Minute, program, args...); err != nil {
		b.t.Logf("no figure of %s: %v", name, err)
		return
	}
	f, err := os.Open(out)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	r := b.row(name)
	r.seconds = append(r.seconds, time.Since(start).Seconds())
	if err := f.Close(); err != nil {
		b.t.Fatal(err)
	}
	r.size = diskBytes(b.t, out)
	if err := os.Remove(out); err != nil {
		b.t.Fatal(err)
	}
}

// print shows medians, and each as a multiple of zstd -3's.
func (b *importBench) print() {
	base := b.row("zstd -3 -T2")
	var out strings.Builder
	fmt.Fprintf(&out, "%d MB of image, %d MB not zero; medians of %d rounds; target 0.70 of zstd -3\n",
		b.bytes/1e6, b.nonZero*image.PageSize/1e6, b.rounds)
	fmt.Fprintf(&out, "%-28s %8s %8s %10s %10s %8s %8s\n", "", "s", "ratio", "image MB/s", "data MB/s", "MB",
		"CPU, s")
	for _, r := range b.rows {
		if len(r.seconds) == 0 {
			continue
		}
		s := median(r.seconds)
		ratio, cpu := "", ""
		if len(base.seconds) > 0 {
			ratio = fmt.Sprintf("%.2f", s/median(base.seconds))
		}
		if len(r.cpu) > 0 {
			cpu = fmt.Sprintf("%.2f", median(r.cpu))
		}
		fmt.Fprintf(&out, "%-28s %8.2f %8s %10.0f %10.0f %8.0f %8s\n", r.name, s, ratio, float64(b.bytes)/1e6/s,
			float64(b.nonZero*image.PageSize)/1e6/s, float64(r.size)/1e6, cpu)
	}
	b.t.Logf("\n%s", out.String())
}
