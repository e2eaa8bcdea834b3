package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// ruin is a way to damage a pack of a closed store.
type ruin struct {
	name string
	do   func(t *testing.T, r *rand.Rand, dir string)
}

const ruinedPack = "packs/0000000001.0.pack"

// changeFile lets change have the content of a file.
func changeFile(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// rewritePack puts a pack in the place of the one in dir, under the same name and number. make has
// the old one, all its pages, and a writer.
func rewritePack(t *testing.T, dir string, make func(old *pack.Reader, w *pack.Writer) error) {
	t.Helper()
	ctx := context.Background()
	blobs, err := blob.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := pack.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	obj, err := blobs.Open(ctx, ruinedPack)
	if err != nil {
		t.Fatal(err)
	}
	old, err := pack.Open(obj, ruinedPack, dec)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := blobs.Remove(ctx, ruinedPack); err != nil {
		t.Fatal(err)
	}
	bw, err := blobs.Create(ctx, ruinedPack)
	if err != nil {
		t.Fatal(err)
	}
	w, err := pack.NewWriter(bw, old.Number(), old.Generation())
	if err != nil {
		t.Fatal(err)
	}
	w.Continue(old)
	if err := make(old, w); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
}

// copyPack copies the first pages of a pack, and all records under another kind.
func copyPack(old *pack.Reader, w *pack.Writer, slots int, kind func(uint32) uint32) error {
	enc, err := pack.NewEncoder(pack.ProfileDefault)
	if err != nil {
		return err
	}
	hashes, err := old.Hashes()
	if err != nil {
		return err
	}
	for first := 0; first < slots; first += pack.BlockPages {
		n := min(pack.BlockPages, slots-first)
		var eb pack.EncodedBlock
		var bad pack.BadSlots
		buf := make([]byte, n*PageSize)
		old.ReadSlots(uint32(first), buf, &bad)
		if err := enc.EncodeBlock(&eb, slices.Collect(slices.Chunk(buf, PageSize))); err != nil {
			return err
		}
		if _, err := w.AppendBlock(&eb, hashes[first:first+n]); err != nil {
			return err
		}
	}
	for i := range old.Records() {
		b, err := old.ReadRecord(i, nil)
		if err != nil {
			return err
		}
		if _, err := w.AppendRecord(kind(old.Record(i).Kind), b); err != nil {
			return err
		}
	}
	return nil
}

func ruins(key pack.HashKey) []ruin {
	same := func(k uint32) uint32 { return k }
	path := func(dir string) string { return filepath.Join(dir, filepath.FromSlash(ruinedPack)) }
	return []ruin{
		{"flipped", func(t *testing.T, r *rand.Rand, dir string) {
			changeFile(t, path(dir), func(b []byte) []byte {
				for range 1 + r.IntN(40) {
					b[r.IntN(len(b)-2000)] ^= byte(1 + r.IntN(255))
				}
				return b
			})
		}},
		{"a hole of zeros", func(t *testing.T, r *rand.Rand, dir string) {
			changeFile(t, path(dir), func(b []byte) []byte {
				from := r.IntN(len(b) / 2)
				clear(b[from : from+len(b)/4])
				return b
			})
		}},
		{"cut", func(t *testing.T, r *rand.Rand, dir string) {
			changeFile(t, path(dir), func(b []byte) []byte { return b[:r.IntN(len(b))] })
		}},
		{"missing", func(t *testing.T, _ *rand.Rand, dir string) {
			if err := os.Remove(path(dir)); err != nil {
				t.Fatal(err)
			}
		}},
		{"another pack", func(t *testing.T, _ *rand.Rand, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "packs", "0000000002.0.pack"))
			if err != nil {
				t.Fatal(err)
			}
			changeFile(t, path(dir), func([]byte) []byte { return b })
		}},
		{"dead", func(t *testing.T, r *rand.Rand, dir string) {
			rewritePack(t, dir, func(old *pack.Reader, w *pack.Writer) error {
				enc, err := pack.NewEncoder(pack.ProfileDefault)
				if err != nil {
					return err
				}
				return pack.Rewrite(t.Context(), old, w, enc, key,
					pack.Keep{Slot: func(uint32) bool { return r.IntN(3) > 0 }})
			})
		}},
		{"fewer slots", func(t *testing.T, _ *rand.Rand, dir string) {
			rewritePack(t, dir, func(old *pack.Reader, w *pack.Writer) error {
				return copyPack(old, w, old.Slots()/2+3, same)
			})
		}},
		{"records of another kind", func(t *testing.T, _ *rand.Rand, dir string) {
			rewritePack(t, dir, func(old *pack.Reader, w *pack.Writer) error {
				return copyPack(old, w, old.Slots(), func(k uint32) uint32 { return k + 40 })
			})
		}},
	}
}

// ruinStore makes a store of which pack 1 has most pages of both checkpoints and no node, so that
// images open whatever happens to it. Dead slots lie between live ones. It gives the images.
func ruinStore(t *testing.T, dir string, r *rand.Rand) map[string]testImage {
	t.Helper()
	s := openTest(t, dir, nil)
	defer s.Close()
	s.limits.packPages = 1000
	one, set := scattered(r, 1500)
	for i := range one {
		if r.IntN(10) == 0 {
			one[i] = one[r.IntN(len(one))] // pages that are there several times, and zeros
		}
		if r.IntN(20) == 0 {
			one[i] = 0
		}
	}
	two := one.changed(r, 0.2)
	mustImport(t, s, "one", writeSource(t, one.bytes(), nil), set)
	mustImport(t, s, "two", writeSource(t, two.bytes(), nil), set[:700])
	return map[string]testImage{"one": one, "two": two}
}

// sameDespite reads an image in every way. What can be read page by page must come in every other
// way too, and nothing but right bytes ever; the rest must be named.
func sameDespite(t *testing.T, m *Image, want []byte) (bad int) {
	t.Helper()
	good := make([]bool, m.Pages())
	page := make([]byte, PageSize)
	for gfn := range m.Pages() {
		err := m.ReadPage(gfn, page)
		if err != nil && !isDamage(err) {
			t.Fatalf("page %d: %v", gfn, err)
		}
		if good[gfn] = err == nil; !good[gfn] {
			bad++
		} else if !bytes.Equal(page, want[gfn*PageSize:][:PageSize]) {
			t.Fatalf("page %d: wrong bytes", gfn)
		}
	}
	rangesDespite(t, m, want, good)
	blocksDespite(t, m, want, good)
	for _, f := range []Feed{m.EagerFeed(), m.WorkingSetFeed()} {
		feedDespite(t, m, f, want, good)
	}
	return bad
}

// named checks that an error names exactly those of some pages that are not good.
func named(t *testing.T, what string, err error, gfns []uint64, good []bool) {
	t.Helper()
	var bad []uint64
	for _, gfn := range gfns {
		if !good[gfn] {
			bad = append(bad, gfn)
		}
	}
	slices.Sort(bad)
	var lost *PagesError
	switch {
	case err == nil && len(bad) == 0:
	case !errors.As(err, &lost) || !isDamage(err):
		t.Fatalf("%s: %d pages are bad, error %v", what, len(bad), err)
	case !slices.Equal(lost.GFNs, bad):
		t.Fatalf("%s: %v named, want %v", what, lost.GFNs, bad)
	}
}

func rangesDespite(t *testing.T, m *Image, want []byte, good []bool) {
	t.Helper()
	r := rand.New(rand.NewPCG(90, 1))
	for i := range 40 {
		first := r.Uint64N(m.Pages())
		n := 2 + r.Uint64N(min(64, m.Pages()))
		if i == 0 {
			first, n = 0, m.Pages()
		}
		n = min(n, m.Pages()-first)
		if n < 2 {
			continue
		}
		buf := bytes.Repeat([]byte{0xEE}, int(n)*PageSize)
		var gfns []uint64
		for gfn := first; gfn < first+n; gfn++ {
			gfns = append(gfns, gfn)
		}
		named(t, fmt.Sprintf("range %d+%d", first, n), m.ReadRange(first, buf), gfns, good)
		for j, gfn := range gfns {
			w := want[gfn*PageSize:][:PageSize]
			if !good[gfn] {
				w = zeroPage[:]
			}
			if !bytes.Equal(buf[j*PageSize:][:PageSize], w) {
				t.Fatalf("range %d+%d: page %d has wrong bytes", first, n, gfn)
			}
		}
	}
}

// pieceDespite checks that a piece has the good ones of some pages, and right.
func pieceDespite(t *testing.T, what string, p *Piece, err error, gfns []uint64, want []byte,
	good []bool) {
	t.Helper()
	named(t, what, err, gfns, good)
	seen := map[uint64]int{}
	comparePiece(t, p, want, seen)
	for _, gfn := range gfns {
		if seen[gfn] == 1 != good[gfn] {
			t.Fatalf("%s: page %d comes %d times, good: %v", what, gfn, seen[gfn], good[gfn])
		}
	}
	if len(p.GFNs) > len(gfns) {
		t.Fatalf("%s: %d pages of %d", what, len(p.GFNs), len(gfns))
	}
}

func blocksDespite(t *testing.T, m *Image, want []byte, good []bool) {
	t.Helper()
	var p Piece
	for gfn := range m.Pages() {
		if b, ok := m.Block(gfn); ok {
			err := m.ReadBlock(b, &p)
			pieceDespite(t, fmt.Sprintf("block of page %d", gfn), &p, err, m.BlockGFNs(b, nil), want, good)
		} else if good[gfn] != m.Zero(gfn) {
			t.Fatalf("page %d has no block, good: %v", gfn, good[gfn])
		}
	}
}

// feedDespite reads a feed. Pages of the working set may be there though their packs are damaged.
func feedDespite(t *testing.T, m *Image, f Feed, want []byte, good []bool) {
	t.Helper()
	_, isSet := f.(*workingSetFeed)
	seen := map[uint64]int{}
	var p Piece
	for i := range f.Len() {
		err := ReadPiece(t.Context(), f, i, &p)
		var lost *PagesError
		if err != nil && !errors.As(err, &lost) {
			t.Fatalf("piece %d: %v", i, err)
		}
		if lost != nil {
			for _, gfn := range lost.GFNs {
				if good[gfn] {
					t.Fatalf("piece %d: page %d is good, and left out", i, gfn)
				}
				seen[gfn]++
			}
		}
		promised := slices.DeleteFunc(f.GFNs(i, nil), func(gfn uint64) bool {
			return lost != nil && slices.Contains(lost.GFNs, gfn)
		})
		if !slices.Equal(promised, p.GFNs) {
			t.Fatalf("piece %d has pages %d, it should have %d", i, p.GFNs, promised)
		}
		comparePiece(t, &p, want, seen)
	}
	for gfn := range m.Pages() {
		if n := seen[gfn]; n > 1 || !isSet && n == 1 == m.Zero(gfn) {
			t.Fatalf("page %d is in %d pieces", gfn, n)
		}
	}
	if isSet && uint64(len(seen)) != countPages(m.WorkingSet()) {
		t.Fatalf("%d pages of a working set of %d", len(seen), countPages(m.WorkingSet()))
	}
}

// Whatever happens to a pack, every way of reading returns right bytes or an error for that page.
func TestRuinedPack(t *testing.T) {
	top := t.TempDir()
	sound := filepath.Join(top, "sound")
	r := newRand(t)
	images := ruinStore(t, sound, r)
	s := openTest(t, sound, nil)
	all, key := ruins(s.key), s.key
	s.Close()
	cold := filepath.Join(top, "cold")
	copyTree(t, sound, cold)
	coolPack(t, cold, key)
	for _, how := range all {
		first := r.IntN(2)
		for round := range fewer(6, 1) {
			t.Run(fmt.Sprintf("%s %d", how.name, round), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "store")
				copyTree(t, []string{sound, cold}[(first+round)%2], dir)
				how.do(t, r, dir)
				bad := 0
				for name, img := range images {
					for _, highLatency := range []bool{false, true} {
						bad += readRuined(t, dir, name, img.bytes(), highLatency)
					}
				}
				if bad == 0 && how.name != "records of another kind" {
					t.Error("no page is bad")
				}
			})
		}
	}
}

func readRuined(t *testing.T, dir, name string, want []byte, highLatency bool) int {
	t.Helper()
	var s *Store
	var err error
	if highLatency {
		s, _ = onSlowDisk(t, dir, 4*latencyOfBlock)
	} else if s, err = Open(t.Context(), dir, OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := openImage(t, s, name)
	defer m.Close()
	return sameDespite(t, m, want)
}
