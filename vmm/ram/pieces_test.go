package ram

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/wss"
)

// Overlays of pieces, compared with an array that has the file of each page.
func TestOverlay(t *testing.T) {
	const pages = 100
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		root := &source{}
		pieces := []piece{{PageRun{0, pages}, root}}
		var model [pages]*source
		for i := range model {
			model[i] = root
		}
		for range 6 {
			src := &source{}
			runs := randomRuns(r, pages)
			pieces = overlay(pieces, runs, src)
			for _, run := range runs {
				for gfn := run.First; gfn < run.End(); gfn++ {
					model[gfn] = src
				}
			}
			checkPieces(t, pieces, model[:])
		}
		want := PageRun{r.Uint64N(pages), 0}
		want.Count = r.Uint64N(pages - want.First + 1)
		var n uint64
		for _, p := range within(pieces, want) {
			if p.First != want.First+n || model[p.First] != p.src {
				t.Fatalf("pieces within %+v: %+v", want, p)
			}
			n += p.Count
		}
		if n != want.Count {
			t.Fatalf("%d pages within %+v", n, want)
		}
	}
}

// Two layers of a million runs each, where each run goes on in another piece, do not take for ever.
func TestOverlayManyRuns(t *testing.T) {
	const n = 1 << 20
	under, over := make([]PageRun, n), make([]PageRun, n)
	for i := range uint64(n) {
		under[i], over[i] = PageRun{4 * i, 2}, PageRun{4*i + 1, 2}
	}
	first, second := &source{}, &source{}
	pieces := overlay([]piece{{PageRun{0, 4 * n}, &source{}}}, under, first)
	pieces = overlay(pieces, over, second)
	if want := (piece{PageRun{4*n - 3, 2}, second}); len(pieces) != 3*n || pieces[3*n-2] != want {
		t.Errorf("%d pieces, the last but one %+v", len(pieces), pieces[len(pieces)-2])
	}
	if over[0] != (PageRun{1, 2}) {
		t.Errorf("the caller's runs were changed: %+v", over[0])
	}
}

// What a file has lost at its end looks like a hole, and is none.
func TestExtentsOfFileThatIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 4*pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	var img Image
	defer img.Close()
	if err := img.AddRoot(path); err != nil {
		t.Fatal(err)
	}
	if runs, err := img.Extents(); err != nil || len(runs) != 1 {
		t.Fatalf("%v, %v", runs, err)
	}
	if err := os.Truncate(path, pageSize); err != nil {
		t.Fatal(err)
	}
	var lost *LostError
	if runs, err := img.Extents(); !errors.As(err, &lost) {
		t.Errorf("of a file that was cut: %v, %v", runs, err)
	}
}

func checkPieces(t *testing.T, pieces []piece, model []*source) {
	t.Helper()
	at := uint64(0)
	for i, p := range pieces {
		if p.First != at || p.Count == 0 || i > 0 && pieces[i-1].src == p.src {
			t.Fatalf("piece %d is %+v, at page %d", i, p, at)
		}
		for ; at < p.End(); at++ {
			if model[at] != p.src {
				t.Fatalf("page %d is of the wrong file", at)
			}
		}
	}
	if at != uint64(len(model)) {
		t.Fatalf("the pieces end at %d", at)
	}
}

func TestCarryWindows(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		since := bitmapOf(randomRuns(r, 300), 300)
		limit := 1 + r.Uint64N(20)
		at, total := uint64(0), since.Count()
		for _, w := range carryWindows(since, limit) {
			inside := wss.NewBitmap(300)
			inside.SetRange(w.First, w.Count)
			if n := inside.And(since).Count(); w.First != at || w.Count == 0 || n > limit {
				t.Fatalf("limit %d: window %+v with %d pages, expected at %d", limit, w, n, at)
			}
			total -= inside.And(since).Count()
			at = w.End()
		}
		if at != 300 || total != 0 {
			t.Fatalf("limit %d: the windows end at %d, %d pages are left", limit, at, total)
		}
	}
}
