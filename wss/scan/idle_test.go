package scan

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/wss"
)

// host is the three files of the kernel, as regular files, and what the kernel does to them.
type host struct {
	t   *testing.T
	dir string
	rng *rand.Rand

	files  map[string]*os.File
	frames map[uint64]uint64 // by page
	flags  map[uint64]uint64 // by frame
	next   uint64
}

const (
	testFrames = 4096
	testAddr   = 0x7000 * wss.PageSize
)

func newHost(t *testing.T, seed uint64) *host {
	h := &host{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(seed, 1)),
		files: map[string]*os.File{}, frames: map[uint64]uint64{}, flags: map[uint64]uint64{}, next: 64}
	for name, size := range map[string]int64{"bitmap": testFrames / 8, "flags": testFrames * 8,
		"pagemap": (testAddr/wss.PageSize + 1000) * 8} {
		f, err := os.Create(h.path(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		h.files[name] = f
	}
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) put(name string, off int64, word uint64) {
	h.t.Helper()
	_, err := h.files[name].WriteAt(binary.LittleEndian.AppendUint64(nil, word), off)
	if err != nil {
		h.t.Fatal(err)
	}
}

// place puts a page into a frame.
func (h *host) place(page, pfn, flags uint64) {
	h.frames[page], h.flags[pfn] = pfn, flags
	h.put("pagemap", (testAddr/wss.PageSize+int64(page))*8, 1<<63|pfn)
	h.put("flags", int64(pfn)*8, flags)
}

func (h *host) evict(page uint64) {
	delete(h.frames, page)
	h.put("pagemap", (testAddr/wss.PageSize+int64(page))*8, 0)
}

// clear takes the marks of frames away, as touching them does.
func (h *host) clear(pfns ...uint64) {
	for _, pfn := range pfns {
		var b [1]byte
		if _, err := h.files["bitmap"].ReadAt(b[:], int64(pfn/8)); err != nil {
			h.t.Fatal(err)
		}
		b[0] &^= 1 << (pfn % 8)
		if _, err := h.files["bitmap"].WriteAt(b[:], int64(pfn/8)); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *host) open() *Idle {
	h.t.Helper()
	// In two mappings, with a page of the address space between.
	s, err := NewIdle([]Mapping{
		{Addr: testAddr, Page: 0, Count: 300}, {Addr: testAddr + 301*wss.PageSize, Page: 301, Count: 299},
	}, IdleOptions{Bitmap: h.path("bitmap"), Pagemap: h.path("pagemap"), Flags: h.path("flags")})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { s.Close() })
	return s
}

func (h *host) sweep(s *Idle) Sweep {
	h.t.Helper()
	r, err := s.Sweep(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func sorted(m map[uint64]bool) []uint64 { return slices.Sorted(maps.Keys(m)) }

func TestIdleAgainstModel(t *testing.T) {
	for seed := range uint64(30) {
		h := newHost(t, seed)
		place := func(page uint64) {
			h.place(page, h.next, flagLRU)
			h.next += 1 + h.rng.Uint64N(3)
		}
		for range 150 {
			if page := h.rng.Uint64N(600); page != 300 {
				place(page)
			}
		}
		s := h.open()
		if s.Pages() != 600 {
			t.Fatalf("%d pages", s.Pages())
		}
		if n := h.sweep(s).Fine.Count(); n != 0 {
			t.Errorf("the first sweep tells of %d pages", n)
		}
		for range 6 {
			want := map[uint64]bool{}
			for page, pfn := range maps.Clone(h.frames) {
				switch h.rng.IntN(12) {
				case 0, 1, 2:
					h.clear(pfn)
					want[page] = true
				case 3:
					h.evict(page)
				case 4: // written to: copied into a frame of its own
					place(page)
					want[page] = true
				}
			}
			for range 5 {
				if page := h.rng.Uint64N(600); page != 300 && h.frames[page] == 0 {
					place(page)
					want[page] = true
				}
			}
			r := h.sweep(s)
			if d := cmp.Diff(sorted(want), sorted(pagesOf(r.Fine))); d != "" {
				t.Fatalf("seed %d: %s", seed, d)
			}
			if r.Coarse.Count() != 0 || r.Refaults != uint64(len(want)) || r.Paused != 0 {
				t.Errorf("sweep %+v", r)
			}
		}
	}
}

// Of a large page the first frame has the mark, for all of them.
func TestIdleLargePages(t *testing.T) {
	h := newHost(t, 1)
	for i := range uint64(512) {
		flags := uint64(flagTail)
		if i == 0 {
			flags = flagHead | flagLRU
		}
		if page := i + 20; page != 300 {
			h.place(page, 1024+i, flags)
		}
	}
	for i := range uint64(4) { // one of four pages
		h.place(i, 2048+i, []uint64{flagHead | flagLRU, flagTail, flagTail, flagTail}[i])
	}
	h.place(10, 3000, flagLRU)
	s := h.open()
	h.sweep(s)
	if r := h.sweep(s); r.Fine.Count()+r.Coarse.Count() != 0 {
		t.Fatalf("nothing was touched: %+v", r)
	}
	h.clear(1024)
	if r := h.sweep(s); r.Fine.Count() != 0 || r.Coarse.Count() != 511 {
		t.Errorf("%d and %d pages", r.Fine.Count(), r.Coarse.Count())
	}
	h.clear(2048, 3000)
	r := h.sweep(s)
	if d := cmp.Diff([]uint64{0, 1, 2, 3}, sorted(pagesOf(r.Coarse))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]uint64{10}, sorted(pagesOf(r.Fine))); d != "" {
		t.Error(d)
	}
}

func TestIdleErrors(t *testing.T) {
	h := newHost(t, 1)
	h.place(5, 100, 0)
	for _, o := range []IdleOptions{
		{Bitmap: h.path("none")},
		{Bitmap: h.path("bitmap"), Pagemap: h.path("none")},
	} {
		_, err := NewIdle([]Mapping{{Addr: testAddr, Count: 10}}, o)
		if !errors.Is(err, ErrNoIdleTracking) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, m := range [][]Mapping{nil, {{Addr: 1, Count: 1}}, {{Count: 0}},
		{{Count: 1, Page: wss.MaxImagePages}}} {
		if _, err := NewIdle(m, IdleOptions{}); err == nil || errors.Is(err, ErrNoIdleTracking) {
			t.Errorf("%v: %v", m, err)
		}
	}
	s := h.open()
	h.put("pagemap", (testAddr/wss.PageSize+6)*8, 1<<63) // what others than root see
	if _, err := s.Sweep(t.Context()); !errors.Is(err, ErrNoIdleTracking) {
		t.Errorf("no frame numbers: %v", err)
	}
	h.evict(6)
	// /dev/zero takes marks and holds none.
	zero, err := NewIdle(s.mappings, IdleOptions{Bitmap: "/dev/zero", Pagemap: h.path("pagemap"),
		Flags: h.path("flags")})
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	if _, err := zero.Sweep(t.Context()); !errors.Is(err, ErrNoIdleTracking) {
		t.Errorf("marks do not hold: %v", err)
	}
}

// The kernel's own, where it has it.
func TestIdleOfThisHost(t *testing.T) {
	s, err := NewIdle([]Mapping{{Addr: testAddr, Count: 1}}, IdleOptions{})
	if errors.Is(err, ErrNoIdleTracking) {
		t.Skipf("%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
}
