package vmm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/wss"
)

// A machine without vCPUs: memory, and a plain array that says what must be in it. What a guest
// would do is done by system calls, which take the same way through the page table.
type model struct {
	t     *testing.T
	r     *rand.Rand
	mem   *memory
	bytes []byte
	saves int
	limit int // of pieces

	images map[string][]byte // directory -> what it must have

	touched, dirty *wss.Bitmap // since the memory was mapped from a checkpoint
}

func newModel(t *testing.T, pages uint64, seed uint64) *model {
	t.Helper()
	mem, err := newMemory(pages * pageSize)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{t: t, r: rand.New(rand.NewPCG(seed, 1)), mem: mem, bytes: make([]byte, pages*pageSize),
		limit: maxRemap, images: map[string][]byte{}}
	m.begin()
	t.Cleanup(func() { m.mem.Close() })
	return m
}

func (m *model) pages() uint64 { return m.mem.size / pageSize }

func (m *model) begin() {
	m.touched, m.dirty = wss.NewBitmap(m.pages()), wss.NewBitmap(m.pages())
}

// work reads and writes some pages, or makes them zero.
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
	touched, dirty, err := m.mem.scan()
	if err != nil {
		m.t.Fatal(err)
	}
	if touched != nil {
		// Pages without a file of their own are only seen when they change.
		wantTouched := m.touched
		if m.mem.own != nil {
			wantTouched = m.touched.AndNot(m.mem.own.AndNot(m.dirty))
		}
		if ok, why := m.mem.exact(); !ok {
			m.t.Skipf("needs asynchronous userfaultfd write-protection (Linux 6.7): %s", why)
		}
		if !touched.Equal(wantTouched) || !dirty.Equal(m.dirty) {
			m.t.Fatalf("%d pages touched, %d dirty, expected %d and %d", touched.Count(), dirty.Count(),
				wantTouched.Count(), m.dirty.Count())
		}
	}
	var file bytesTarget
	if _, err := m.mem.copyTo(m.t.Context(), &file); err != nil {
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

// save does what Machine.Checkpoint does with memory, working in between.
func (m *model) save(diff, remap bool) (dir string) {
	m.t.Helper()
	dir = filepath.Join(m.t.TempDir(), fmt.Sprint("save", m.saves))
	m.saves++
	if err := os.Mkdir(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, memoryFile))
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	sections := []section{{tag: "TEST", data: binary.LittleEndian.AppendUint64(nil, m.r.Uint64())}}
	id := identify(sections)
	runs := []PageRun{{0, m.pages()}}
	if diff {
		if runs, _, err = m.mem.copyChanged(m.t.Context(), f); err != nil {
			m.t.Fatal(err)
		}
		if !bitmapOf(runs, m.pages()).Equal(m.dirty) {
			m.t.Fatalf("%d runs are not the changed pages", len(runs))
		}
		parent := m.mem.parent()
		c := changed{size: m.mem.size, ParentID: parent.id, Parent: parent.dir, runs: runs}
		sections = append(sections, changedSection(m.t, &c))
	} else if _, err := m.mem.copyTo(m.t.Context(), f); err != nil {
		m.t.Fatal(err)
	}
	b, err := encodeState(sections)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), b, 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.images[dir] = bytes.Clone(m.bytes)
	m.checkImage(dir, m.bytes)
	if remap {
		m.remap(dir, id, runs)
	}
	return dir
}

// checkImage compares an image on disk with what it must be.
func (m *model) checkImage(dir string, want []byte) {
	m.t.Helper()
	img, err := OpenImage(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	defer img.Close()
	b := make([]byte, img.Size())
	if _, err := img.ReadAt(b, 0); err != nil {
		m.t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
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

func (m *model) remap(dir string, id identity, runs []PageRun) {
	m.t.Helper()
	goesOn := m.r.IntN(4) > 0
	if goesOn {
		if err := m.mem.mark(); err != nil {
			m.t.Skipf("needs asynchronous userfaultfd write-protection (Linux 6.7): %v", err)
		}
	}
	m.begin()
	if goesOn {
		m.work(m.r.IntN(40))
	}
	since := m.dirty
	f, err := os.Open(filepath.Join(dir, memoryFile))
	if err != nil {
		m.t.Fatal(err)
	}
	carried, unused, err := m.mem.remap(f, runs, &base{dir, id}, m.limit)
	if err := closeSources(unused); err != nil {
		m.t.Error(err)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	if carried != since.Count() {
		m.t.Fatalf("%d pages were carried over, %d changed", carried, since.Count())
	}
	// What was only read before the remap is not known any more.
	m.touched = m.dirty.Or(since)
	m.dirty = since.Or(wss.NewBitmap(m.pages()))
}

// restore maps the memory anew, as another process would.
func (m *model) restore(dir string) {
	m.t.Helper()
	img, err := OpenImage(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.mem.Close(); err != nil {
		m.t.Fatal(err)
	}
	if m.mem, err = mapPieces(img, m.limit); err != nil {
		m.t.Fatal(err)
	}
	m.begin()
}

// Checkpoints of all kinds in any order, for many generations, against the model: every byte of
// memory and of every image, and exactly which pages were touched and changed.
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
				m.save(m.mem.parent() != nil && m.r.IntN(3) > 0, m.r.IntN(4) > 0)
				if m.r.IntN(3) == 0 {
					m.restore(m.save(m.mem.parent() != nil, false))
				}
			}
			m.check()
			// And none was changed by what came after it.
			for dir, want := range m.images {
				m.checkImage(dir, want)
			}
		})
	}
}

// A directory that names itself as its parent, and a chain that is too long.
func TestChainIsBounded(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, memoryFile), make([]byte, pageSize), 0o644); err != nil {
		t.Fatal(err)
	}
	own := []section{{tag: "TEST", data: []byte("x")}}
	c := changed{size: pageSize, Parent: dir, ParentID: identify(own)}
	b, err := encodeState(append(own, changedSection(t, &c)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), b, 0o644); err != nil {
		t.Fatal(err)
	}
	var parent *ParentError
	if _, err := OpenImage(dir); !errors.As(err, &parent) {
		t.Errorf("a checkpoint that is its own parent: %v", err)
	}
	// Without a state of ours it is whole, whatever it is.
	for what, state := range map[string][]byte{"another VMM's": []byte("QEVM"), "no": nil} {
		if err := os.WriteFile(filepath.Join(dir, stateFile), state, 0o644); err != nil {
			t.Fatal(err)
		}
		img, err := OpenImage(dir)
		if err != nil {
			t.Fatalf("%s state: %v", what, err)
		}
		if state, err := img.State(); img.Differential() || state != nil || err != nil ||
			img.Size() != pageSize {
			t.Errorf("%s state: %d bytes, %v", what, len(state), err)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}
