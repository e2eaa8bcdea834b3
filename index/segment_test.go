package index

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/thawfs/thaw/index/pack"
)

// changingMemory is an image whose pages are others when they are read for the second time.
type changingMemory struct {
	pages []byte
	read  []bool
}

func (m *changingMemory) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, m.pages[off:])
	for i := range n / PageSize {
		gfn := int(off)/PageSize + i
		if m.read[gfn] && gfn == 7 {
			p[i*PageSize] ^= 1
		}
		m.read[gfn] = true
	}
	return n, nil
}

func (m *changingMemory) Size() int64 { return int64(len(m.pages)) }

func (m *changingMemory) Extents() ([]Run, error) {
	return []Run{{0, uint64(len(m.pages)) / PageSize}}, nil
}

// What a segment copies are the pages that were stored, though the source changes meanwhile.
func TestSegmentOfChangingSource(t *testing.T) {
	s := openTest(t, t.TempDir()+"/s", nil)
	defer s.Close()
	img := uniqueImage(600).bytes()
	mem := &changingMemory{pages: img, read: make([]bool, 600)}
	_, _, err := s.Import(t.Context(), Source{Memory: "source", Image: mem},
		ImportOptions{Name: "a", WorkingSet: []Run{{0, 300}}})
	var bad *ImageError
	if !errors.As(err, &bad) || !errors.Is(err, pack.ErrHash) {
		t.Errorf("the source changed: %v", err)
	}
	if left := blobFiles(t, s.Dir()); len(left) != 0 {
		t.Errorf("it left %v", left)
	}
}

// A working set is not copied from pages that are not what their hashes say.
func TestSegmentOfWrongPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openTest(t, dir, nil)
	mustImport(t, s, "a", writeSource(t, uniqueImage(600).bytes(), nil), nil)
	m := openImage(t, s, "a")
	if len(m.packs) != 1 {
		t.Fatalf("%d packs", len(m.packs))
	}
	m.Close()
	s.Close()
	rewritePack(t, dir, func(old *pack.Reader, w *pack.Writer) error {
		if err := shiftPages(old, w); err != nil {
			return err
		}
		for i := range old.Records() {
			b, err := old.ReadRecord(i, nil)
			if err != nil {
				return err
			}
			if _, err := w.AppendRecord(old.Record(i).Kind, b); err != nil {
				return err
			}
		}
		return nil
	})
	s = openTest(t, dir, nil)
	defer s.Close()
	var lost *PagesError
	if _, err := s.SetWorkingSet(t.Context(), "a", []byte("set"), []Run{{3, 9}}); !errors.As(err, &lost) ||
		!errors.Is(err, pack.ErrHash) || !slices.Contains(lost.GFNs, 5) {
		t.Errorf("pages are in each other's place: %v", err)
	}
}
