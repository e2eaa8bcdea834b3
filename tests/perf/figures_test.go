package perf

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
	"github.com/thawfs/thaw/tests/internal/firecracker"
	"github.com/thawfs/thaw/tests/internal/image"
)

var (
	full       = flag.Bool("perf", false, "measure; without it the code runs on a small image only")
	imageFlag  = flag.String("image", "", "memory image of a real guest")
	secondFlag = flag.String("second", "", "a later image of the same guest")
	jsonFlag   = flag.String("figures", "", "write the figures to this file as JSON")
)

func TestMain(m *testing.M) {
	measureMainIfChild()
	ramMainIfChild()
	openerMainIfChild()
	client.MainIfChild()
	firecracker.MainIfChild()
	os.Exit(cli.Main(m))
}

// figure is one line of the table.
type figure struct {
	What   string  `json:"what"`
	Unit   string  `json:"unit"`
	Thaw   float64 `json:"thaw"`
	Peer   float64 `json:"peer"`
	Ratio  float64 `json:"ratio"` // thaw / peer
	Target float64 `json:"target"`
	Note   string  `json:"note,omitempty"`
}

// bench is what the measurements share.
type bench struct {
	t             *testing.T
	dir           string
	image, second string   // files
	real          bool     // image is of a real guest
	pages         uint64   // of image
	data          []uint64 // its pages that are not zero
	bytes         []byte   // of image, where they were needed
	rounds        int
	samples       int // faults a round
	setPages      int // of the working set
	figures       []figure
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), image: *imageFlag, second: *secondFlag, real: *imageFlag != "",
		rounds: 7, samples: 10000, setPages: 25600}
	spec := image.Spec{Pages: 128 << 10, Seed: 1}
	if !*full {
		spec.Pages, b.rounds, b.samples, b.setPages = 4<<10, 1, 200, 512
		b.image, b.second, b.real = "", "", false
	}
	if b.image == "" {
		b.image = filepath.Join(b.dir, "image.mem")
		if err := spec.Write(b.image); err != nil {
			t.Fatal(err)
		}
	}
	if b.second == "" {
		b.second = filepath.Join(b.dir, "second.mem")
		b.makeSecond()
	}
	b.scan()
	b.setPages = min(b.setPages, len(b.data)/2)
	return b
}

// makeSecond writes an image in which every hundredth page of the first has changed.
func (b *bench) makeSecond() {
	data, err := os.ReadFile(b.image)
	if err != nil {
		b.t.Fatal(err)
	}
	changed := image.Spec{Pages: uint64(len(data)) / image.PageSize, Seed: 1234, Full: true}
	for gfn := uint64(3); gfn < changed.Pages; gfn += 100 {
		changed.Page(gfn, data[gfn*image.PageSize:][:image.PageSize])
	}
	if err := os.WriteFile(b.second, data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// scan finds the pages that are not zero.
func (b *bench) scan() {
	data, err := os.ReadFile(b.image)
	if err != nil {
		b.t.Fatal(err)
	}
	b.pages = uint64(len(data)) / image.PageSize
	zero := make([]byte, image.PageSize)
	for gfn := range b.pages {
		if string(data[gfn*image.PageSize:][:image.PageSize]) != string(zero) {
			b.data = append(b.data, gfn)
		}
	}
}

// sample returns n pages that are not zero, in random order.
func (b *bench) sample(n int, seed uint64) []uint64 {
	pages := slices.Clone(b.data)
	rnd := rand.New(rand.NewPCG(seed, 2))
	rnd.Shuffle(len(pages), func(i, j int) { pages[i], pages[j] = pages[j], pages[i] })
	return pages[:min(n, len(pages))]
}

// add records a figure from one value a round of each side.
func (b *bench) add(what, unit string, thaw, peer []float64, target float64, note string) {
	f := figure{What: what, Unit: unit, Thaw: median(thaw), Peer: median(peer), Target: target, Note: note}
	if f.Peer > 0 {
		f.Ratio = f.Thaw / f.Peer
	}
	b.figures = append(b.figures, f)
}

func median(v []float64) float64 { return quantile(v, 0.5) }

func quantile[T int64 | float64](v []T, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Clone(v)
	slices.Sort(s)
	return float64(s[int(q*float64(len(s)-1)+0.5)])
}

// round runs one round in a test of its own, so that its mounts and clients are gone afterwards.
func (b *bench) round(name string, i int, f func(t *testing.T)) {
	b.t.Helper()
	if !b.t.Run(fmt.Sprintf("%s/%d", name, i), f) {
		b.t.FailNow()
	}
}

// TestFigures measures everything and prints the table. It asserts nothing about the figures: they
// are for a reader who knows what else the machine did.
func TestFigures(t *testing.T) {
	cli.NeedFUSE(t)
	b := newBench(t)
	if *full {
		if err := touchHostMemory(6 << 30); err != nil {
			t.Logf("touch host memory: %v", err)
		}
	}
	stores := b.measureStore()
	b.measureFaults("lazy fault", stores.normal, 1.6, false)
	b.measureFaults("lazy fault, --profile fast", stores.fast, 1.3, false)
	b.measureFaults("lazy fault, one CPU", stores.normal, 1.6, true)
	b.measureFaults("lazy fault, one CPU, --profile fast", stores.fast, 1.3, true)
	b.measureTiers()
	b.measureFirstTouch(stores.normal)
	b.measurePrefetch(stores.normal)
	b.print()
}

func (b *bench) print() {
	var out strings.Builder
	kind := "a synthetic image"
	if b.real {
		kind = b.image
	}
	fmt.Fprintf(&out, "%s: %d pages, %d not zero; %d rounds, medians\n", kind, b.pages, len(b.data), b.rounds)
	fmt.Fprintf(&out, "%-46s %-8s %10s %10s %7s %7s\n", "", "unit", "thaw", "peer", "ratio", "target")
	for _, f := range b.figures {
		ratio, target := fmt.Sprintf("%.2f", f.Ratio), fmt.Sprintf("%.2f", f.Target)
		if f.Peer == 0 {
			ratio = ""
		}
		if f.Target == 0 {
			target = ""
		}
		fmt.Fprintf(&out, "%-46s %-8s %10.2f %10.2f %7s %7s  %s\n", f.What, f.Unit, f.Thaw, f.Peer,
			ratio, target, f.Note)
	}
	b.t.Logf("\n%s", out.String())
	if *jsonFlag != "" {
		text, err := json.MarshalIndent(b.figures, "", "  ")
		if err == nil {
			err = os.WriteFile(*jsonFlag, append(text, '\n'), 0o644)
		}
		if err != nil {
			b.t.Error(err)
		}
	}
}
