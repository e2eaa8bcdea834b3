package ram

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// A machine without vCPUs: memory, and a plain array with the expected contents. System calls act in
// place of a guest; they use the same page table.
type model struct {
	t     *testing.T
	r     *rand.Rand
	mem   *Memory
	bytes []byte
	saves int
	limit int // of pieces

	images map[string]generation // by directory

	touched, dirty *wss.Bitmap // since the memory was mapped from a checkpoint
}

// generation is a checkpoint's memory.
type generation struct {
	bytes  []byte // what it must be
	parent string // directory with its other pages; "": it has all
	runs   []PageRun
}

func newModel(t *testing.T, pages uint64, seed uint64) *model {
	t.Helper()
	mem, err := New(pages * pageSize)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{t: t, r: rand.New(rand.NewPCG(seed, 1)), mem: mem, bytes: make([]byte, pages*pageSize),
		limit: MaxRemap, images: map[string]generation{}}
	m.begin()
	t.Cleanup(func() { m.mem.Close() })
	return m
}

func (m *model) pages() uint64 { return m.mem.size / pageSize }

func (m *model) begin() {
	m.touched, m.dirty = wss.NewBitmap(m.pages()), wss.NewBitmap(m.pages())
}

// work reads or writes some pages, or makes them zero.
func (m *model) work(accesses int) {
	m.t.Helper()
	page := make([]byte, pageSize)
	for range accesses {
		gfn := m.r.Uint64N(m.pages())
		m.touched.Set(gfn)
		want := m.bytes[gfn*pageSize : (gfn+1)*pageSize]
		switch m.r.IntN(4) {
		case 0, 1:
			binary.LittleEndian.PutUint64(page, m.r.Uint64())
			copy(want, page)
		case 2:
			clear(want)
		default:
			if _, err := m.mem.ReadAt(page[:8], int64(gfn*pageSize)); err != nil {
				m.t.Fatal(err)
			}
			if !bytes.Equal(page[:8], want[:8]) {
				m.t.Fatalf("page %d has %x, expected %x", gfn, page[:8], want[:8])
			}
			continue
		}
		m.dirty.Set(gfn)
		if _, err := m.mem.WriteAt(want, int64(gfn*pageSize)); err != nil {
			m.t.Fatal(err)
		}
	}
}

// check compares what the tracker says, then all bytes.
func (m *model) check() {
	m.t.Helper()
	touched, dirty, err := m.mem.Scan()
	if err != nil {
		m.t.Fatal(err)
	}
	if touched != nil {
		// Pages without a file of their own are only seen when they change.
		wantTouched := m.touched
		if m.mem.own != nil {
			wantTouched = m.touched.AndNot(m.mem.own.AndNot(m.dirty))
		}
		if ok, why := m.mem.Exact(); !ok {
			m.t.Skipf("needs asynchronous userfaultfd write-protection (Linux 6.7): %s", why)
		}
		if !touched.Equal(wantTouched) || !dirty.Equal(m.dirty) {
			m.t.Fatalf("%d pages touched, %d dirty, expected %d and %d", touched.Count(), dirty.Count(),
				wantTouched.Count(), m.dirty.Count())
		}
	}
	var file bytesTarget
	if _, err := m.mem.CopyTo(m.t.Context(), &file); err != nil {
		m.t.Fatal(err)
	}
	if !bytes.Equal(file.b, m.bytes) {
		m.t.Fatal("the memory is not what it must be")
	}
}

// bytesTarget is a copy's target in memory.
type bytesTarget struct{ b []byte }

func (f *bytesTarget) Truncate(size int64) error { f.b = make([]byte, size); return nil }

func (f *bytesTarget) WriteAt(p []byte, off int64) (int, error) { return copy(f.b[off:], p), nil }

// save does what Machine.Checkpoint does with memory, with work between its steps.
func (m *model) save(diff, remap bool) (dir string) {
	m.t.Helper()
	dir = filepath.Join(m.t.TempDir(), fmt.Sprint("save", m.saves))
	m.saves++
	if err := os.Mkdir(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "memory"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	g := generation{bytes: bytes.Clone(m.bytes), runs: []PageRun{{0, m.pages()}}}
	if diff {
		g.parent = m.mem.Base().Dir
		if g.runs, _, err = m.mem.CopyChanged(m.t.Context(), f, 1<<20); err != nil {
			m.t.Fatal(err)
		}
		if !bitmapOf(g.runs, m.pages()).Equal(m.dirty) {
			m.t.Fatalf("%d runs are not the changed pages", len(g.runs))
		}
	} else if _, err := m.mem.CopyTo(m.t.Context(), f); err != nil {
		m.t.Fatal(err)
	}
	m.images[dir] = g
	m.checkImage(dir)
	if remap {
		m.remap(dir, g.runs)
	}
	return dir
}

// open puts the image of a checkpoint together.
func (m *model) open(dir string) *Image {
	m.t.Helper()
	img := new(Image)
	var errs []error
	for m.images[dir].parent != "" {
		g := m.images[dir]
		errs = append(errs, img.AddLayer(filepath.Join(dir, "memory"), m.mem.size, g.runs))
		dir = g.parent
	}
	errs = append(errs, img.AddRoot(filepath.Join(dir, "memory")))
	if err := errors.Join(errs...); err != nil {
		m.t.Fatal(err)
	}
	return img
}

// checkImage compares an image on disk with what it must be.
func (m *model) checkImage(dir string) {
	m.t.Helper()
	img := m.open(dir)
	defer img.Close()
	b := make([]byte, img.Size())
	if _, err := img.ReadAt(b, 0); err != nil {
		m.t.Fatal(err)
	}
	if !bytes.Equal(b, m.images[dir].bytes) {
		m.t.Fatalf("%s is not what the memory was", dir)
	}
	extents, err := img.Extents()
	if err != nil {
		m.t.Fatal(err)
	}
	data := bitmapOf(extents, m.pages())
	for gfn := range m.pages() {
		if !data.Has(gfn) && !bytes.Equal(b[gfn*pageSize:(gfn+1)*pageSize], zeroPage[:]) {
			m.t.Fatalf("page %d of %s is in no extent and not zero", gfn, dir)
		}
	}
}

func (m *model) remap(dir string, runs []PageRun) {
	m.t.Helper()
	goesOn := m.r.IntN(4) > 0
	if goesOn {
		if err := m.mem.Mark(); err != nil {
			m.t.Skipf("needs asynchronous userfaultfd write-protection (Linux 6.7): %v", err)
		}
	}
	m.begin()
	if goesOn {
		m.work(m.r.IntN(40))
	}
	since := m.dirty
	f, err := os.Open(filepath.Join(dir, "memory"))
	if err != nil {
		m.t.Fatal(err)
	}
	carried, unused, err := m.mem.Remap(f, runs, Base{Dir: dir}, m.limit)
	if err := unused.Close(); err != nil {
		m.t.Error(err)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	if carried != since.Count() {
		m.t.Fatalf("%d pages were carried over, %d changed", carried, since.Count())
	}
	// Of many runs only the longest are mapped; the others stay copies.
	if own := m.mem.own; len(runs) > m.limit && (own == nil || own.Count() == 0) {
		m.t.Errorf("%d runs are mapped, the limit is %d", len(runs), m.limit)
	}
	if own := m.mem.own; len(runs) == 1 && runs[0].Count == m.pages() && own != nil && own.Count() > 0 {
		m.t.Errorf("%d pages are copies after a whole checkpoint", own.Count())
	}
	// Pages that were only read before the remap are not known any more.
	m.touched = m.dirty.Or(since)
	m.dirty = since.Or(wss.NewBitmap(m.pages()))
}

// restore maps the memory anew, as another process would.
func (m *model) restore(dir string) {
	m.t.Helper()
	img := m.open(dir)
	if err := m.mem.Close(); err != nil {
		m.t.Fatal(err)
	}
	var err error
	if m.mem, err = mapPieces(img, Base{Dir: dir}, m.limit); err != nil {
		m.t.Fatal(err)
	}
	m.begin()
}

// Checkpoints of all kinds in random order, for many generations, compared with the model: every byte
// of memory and of every image, and exactly the touched and changed pages.
func TestMemoryOverGenerations(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, 200+100*seed, seed)
			if seed >= 4 {
				m.limit = 20 // so that pieces have to be copied, or stay copies
			}
			for range 15 {
				m.work(60)
				m.check()
				m.save(m.mem.Base() != nil && m.r.IntN(3) > 0, m.r.IntN(4) > 0)
				if m.r.IntN(3) == 0 {
					m.restore(m.save(m.mem.Base() != nil, false))
				}
			}
			m.check()
			// And none was changed by what came after it.
			for dir := range m.images {
				m.checkImage(dir)
			}
		})
	}
}

// A remap that fails before it has begun keeps the record of pages that the guest touched before.
func TestFailedRemapForgetsNothing(t *testing.T) {
	m := newModel(t, 64, 1)
	m.restore(m.save(false, false))
	m.work(20)
	dir := m.save(false, true)
	touched, dirty, err := m.mem.ScanAll()
	if err != nil || touched.Count() == 0 {
		t.Fatalf("%d pages touched, %v", touched.Count(), err)
	}
	f, err := os.Open(filepath.Join(dir, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	err = withoutFiles(t, func() error {
		_, unused, err := m.mem.Remap(f, []PageRun{{0, m.pages()}}, Base{Dir: dir}, m.limit)
		return errors.Join(err, unused.Close())
	})
	if !errors.Is(err, unix.EMFILE) {
		t.Fatalf("remap without files: %v", err)
	}
	nowTouched, nowDirty, err := m.mem.ScanAll()
	if err != nil {
		t.Fatal(err)
	}
	if !nowTouched.Equal(touched) || !nowDirty.Equal(dirty) {
		t.Errorf("%d pages touched, %d dirty, before %d and %d", nowTouched.Count(), nowDirty.Count(),
			touched.Count(), dirty.Count())
	}
}

// withoutFiles calls a function while this process cannot open files.
func withoutFiles(t *testing.T, do func() error) error {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err := do()
	return errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
}
