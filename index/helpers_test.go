package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the tests' random choices; 0: a new one in each run")

// testLog shows warnings of a store in the test's log.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(b))
	return len(b), nil
}

func openTest(t testing.TB, dir string, blobs blob.Store) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir, OpenOptions{
		Create: true, Blobs: blobs, Log: testLog(t), Keys: keysFor(dir),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newRand makes random choices, other ones in each run; the log says with which -seed they come again.
func newRand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	return rand.New(rand.NewPCG(seed, 77))
}

// fewer is the number of rounds: with -short, fewer of them.
func fewer(rounds, short int) int {
	if testing.Short() {
		return short
	}
	return rounds
}

// fillPage makes the page with a given seed: compressible, and like no other. Seed 0 is the zero
// page. A seed with other eight highest bits is another version of a page: some words of it are other ones.
func fillPage(page []byte, seed uint64) {
	clear(page)
	if seed == 0 {
		return
	}
	if version := seed >> versionBits; version > 0 {
		fillPage(page, seed&(1<<versionBits-1))
		r := rand.New(rand.NewPCG(seed, 98))
		for range 8 {
			binary.LittleEndian.PutUint64(page[r.IntN(PageSize/8)*8:], r.Uint64())
		}
		return
	}
	r := rand.New(rand.NewPCG(seed, 99))
	for i := 0; i+8 <= len(page); i += 8 {
		if i%64 == 0 || seed%7 == 0 {
			binary.LittleEndian.PutUint64(page[i:], r.Uint64())
		} else {
			binary.LittleEndian.PutUint64(page[i:], seed)
		}
	}
}

const versionBits = 56

// testImage is an image as the seeds of its pages.
type testImage []uint64

func (m testImage) bytes() []byte {
	b := make([]byte, len(m)*PageSize)
	for i, seed := range m {
		fillPage(b[i*PageSize:(i+1)*PageSize], seed)
	}
	return b
}

// randomImage has zero pages, pages of its own, and some that come again and again.
func randomImage(r *rand.Rand, pages int) testImage {
	m := make(testImage, pages)
	for i := 0; i < pages; {
		run := min(1+r.IntN(40), pages-i)
		kind := r.IntN(4)
		for range run {
			switch kind {
			case 0:
			case 1:
				m[i] = 1 + r.Uint64N(8)
			default:
				m[i] = 1000 + r.Uint64()>>8
			}
			i++
		}
	}
	return m
}

// change returns a later image of the same machine: n runs of pages are other ones.
func (m testImage) change(r *rand.Rand, n int) testImage {
	out := append(testImage(nil), m...)
	for range n {
		at := r.IntN(len(m))
		for i := at; i < min(at+1+r.IntN(5), len(m)); i++ {
			out[i] = 1000 + r.Uint64()>>8
			if r.IntN(5) == 0 {
				out[i] = 0
			}
		}
	}
	return out
}

// evolve returns a later image of the same machine: about a share of its pages have other versions.
func (m testImage) evolve(r *rand.Rand, share float64) testImage {
	out := append(testImage(nil), m...)
	for i := range out {
		if out[i] != 0 && r.Float64() < share {
			out[i] += 1 << versionBits
		}
	}
	return out
}

// writeSparse writes an image as a file with holes where whole pages are zero.
func writeSparse(t testing.TB, path string, b []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(len(b))); err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(b); off += PageSize {
		if page := b[off : off+PageSize]; !isZero(page) {
			if _, err := f.WriteAt(page, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// writeSource writes a checkpoint directory and opens it as a source.
func writeSource(t testing.TB, img []byte, files map[string][]byte) Source {
	t.Helper()
	dir := t.TempDir()
	writeSparse(t, filepath.Join(dir, "memory"), img)
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src, err := OpenSource(dir)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func mustImport(t testing.TB, s *Store, name string, src Source, set []Run) (Checkpoint, ImportStats) {
	t.Helper()
	c, st, err := s.Import(context.Background(), src, ImportOptions{Name: name, WorkingSet: set})
	if err != nil {
		t.Fatal(err)
	}
	return c, st
}

func openImage(t testing.TB, s *Store, name string) *Image {
	t.Helper()
	m, err := s.OpenImage(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// sameImage reads an image in every way there is, and compares.
func sameImage(t testing.TB, m *Image, want []byte) {
	t.Helper()
	if m.Size() != int64(len(want)) {
		t.Fatalf("size %d, want %d", m.Size(), len(want))
	}
	pages := uint64(len(want) / PageSize)
	page := make([]byte, PageSize)
	for gfn := range pages {
		if err := m.ReadPage(gfn, page); err != nil {
			t.Fatal(err)
		}
		w := want[gfn*PageSize:][:PageSize]
		if !bytes.Equal(page, w) {
			t.Fatalf("page %d differs", gfn)
		}
		if m.Zero(gfn) != isZero(w) {
			t.Fatalf("page %d: Zero says %v", gfn, m.Zero(gfn))
		}
	}
	got := make([]byte, len(want))
	if err := m.ReadRange(0, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("ReadRange of all: %v", err)
	}
	sameFeed(t, m, want)
	sameBlocks(t, m, want)
	sameZeroRuns(t, m, want)
}

// comparePiece checks that the pages of a piece are those of the image, and notes their numbers.
func comparePiece(t testing.TB, p *Piece, want []byte, seen map[uint64]int) {
	t.Helper()
	if len(p.Pages) != len(p.GFNs)*PageSize {
		t.Fatalf("%d gfns, %d bytes", len(p.GFNs), len(p.Pages))
	}
	for i, gfn := range p.GFNs {
		if !bytes.Equal(p.Pages[i*PageSize:][:PageSize], want[gfn*PageSize:][:PageSize]) {
			t.Fatalf("page %d differs in a piece", gfn)
		}
		seen[gfn]++
	}
}

func sameFeed(t testing.TB, m *Image, want []byte) {
	t.Helper()
	seen := map[uint64]int{}
	var p Piece
	feed := m.EagerFeed()
	for i := range feed.Len() {
		if err := ReadPiece(context.Background(), feed, i, &p); err != nil {
			t.Fatal(err)
		}
		comparePiece(t, &p, want, seen)
	}
	for gfn := range m.Pages() {
		if n := seen[gfn]; n != 1 && !m.Zero(gfn) || n != 0 && m.Zero(gfn) {
			t.Fatalf("page %d comes %d times in the eager feed", gfn, n)
		}
	}
}

func sameBlocks(t testing.TB, m *Image, want []byte) {
	t.Helper()
	blocks := map[Block]bool{}
	seen := map[uint64]int{}
	var p Piece
	for gfn := range m.Pages() {
		b, ok := m.Block(gfn)
		if ok == m.Zero(gfn) {
			t.Fatalf("page %d: Block says %v", gfn, ok)
		}
		if !ok || blocks[b] {
			continue
		}
		blocks[b] = true
		if err := m.ReadBlock(b, &p); err != nil {
			t.Fatal(err)
		}
		comparePiece(t, &p, want, seen)
		gfns := m.BlockGFNs(b, nil)
		if len(gfns) != len(p.GFNs) {
			t.Fatalf("block of page %d: %d gfns, %d read", gfn, len(gfns), len(p.GFNs))
		}
		for i := range gfns {
			if gfns[i] != p.GFNs[i] {
				t.Fatalf("block of page %d: gfns %v, read %v", gfn, gfns, p.GFNs)
			}
		}
	}
	copies := map[uint64]int{}
	m.pages.each(func(_, place uint64) { copies[place]++ })
	for gfn := range m.Pages() {
		place, ok := m.pages.place(gfn)
		if want := ok && copies[place] <= maxCopies; want != (seen[gfn] == 1) || seen[gfn] > 1 {
			t.Fatalf("page %d, of which there are %d, is in %d blocks", gfn, copies[place], seen[gfn])
		}
	}
}

func sameZeroRuns(t testing.TB, m *Image, want []byte) {
	t.Helper()
	end := uint64(0)
	m.ZeroRuns(func(first, count uint64) bool {
		for gfn := end; gfn < first; gfn++ {
			if m.Zero(gfn) {
				t.Fatalf("zero page %d is in no run", gfn)
			}
		}
		for gfn := first; gfn < first+count; gfn++ {
			if !m.Zero(gfn) {
				t.Fatalf("page %d is in a zero run", gfn)
			}
		}
		if count == 0 || first == end && first != 0 {
			t.Fatalf("run %d+%d after %d", first, count, end)
		}
		end = first + count
		return true
	})
	for gfn := end; gfn < m.Pages(); gfn++ {
		if m.Zero(gfn) {
			t.Fatalf("zero page %d is in no run", gfn)
		}
	}
}

// checkClean fails the test if a check finds anything.
func checkClean(t testing.TB, s *Store, readData bool) CheckReport {
	t.Helper()
	rep, err := s.Check(context.Background(), CheckOptions{ReadData: readData})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range rep.Problems {
		t.Errorf("check: %+v", p)
	}
	return rep
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// limitFiles bounds the descriptors of this process until the test ends.
func limitFiles(t *testing.T, n uint64) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := was
	few.Cur = n
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	})
}
