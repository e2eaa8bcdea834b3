package vmm

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/vmm/ram"
	"github.com/thawfs/thaw/wss/pagetable"
)

// tableFile is guest memory in a file, of which one page may be lost. It records which pages are read.
type tableFile struct {
	b    []byte
	lost uint64
	read []ram.PageRun
}

func newTableFile(pages int) *tableFile {
	return &tableFile{b: make([]byte, pages*pageSize), lost: 1 << 40}
}

func (f *tableFile) put(frame uint64, i int, to uint64) {
	binary.LittleEndian.PutUint64(f.b[frame*pageSize+uint64(i)*8:], to*pageSize|0x67)
}

func (f *tableFile) ReadFiles(p []byte, first uint64) error {
	n := uint64(len(p)) / pageSize
	if first+n > uint64(len(f.b))/pageSize {
		return errors.New("beyond the end")
	}
	if f.lost-first < n {
		return &ram.LostError{GFN: f.lost, Known: true, Sign: "read", Err: errors.New("no such page")}
	}
	f.read = append(f.read, ram.PageRun{First: first, Count: n})
	copy(p, f.b[first*pageSize:])
	return nil
}

func TestTablesAreBroughtTogether(t *testing.T) {
	for _, levels := range []int{4, 5} {
		f := newTableFile(64)
		root := uint64(10)
		if levels == 5 {
			root = 9
			f.put(9, 511, 10)
		}
		f.put(10, 0, 20) // two tables side by side, and one apart
		f.put(10, 1, 30)
		f.put(10, 2, 21)
		f.put(21, 0, 40)
		for i := range 8 { // of the lowest level: nothing that they hold is looked at
			f.put(40, 2*i, uint64(50+i))
			f.put(uint64(50+i), 0, 1)
		}
		r := newTableReader(f, 64)
		if err := r.walk(pagetable.Mode{Levels: levels}, root); err != nil {
			t.Fatal(err)
		}
		once := map[ram.PageRun]bool{}
		for _, run := range f.read {
			once[run] = true
		}
		for _, want := range []ram.PageRun{{First: 20, Count: 2}, {First: 30, Count: 1},
			{First: 40, Count: 1}, {First: 50, Count: 8}} {
			if !once[want] {
				t.Errorf("%d levels: %v was not read at once: %v", levels, want, f.read)
			}
		}
		if want := uint64(13 + levels - 4); r.read != want {
			t.Errorf("%d levels: %d tables read, want %d", levels, r.read, want)
		}
		before := len(f.read)
		if err := r.walk(pagetable.Mode{Levels: levels}, root); err != nil || len(f.read) != before {
			t.Errorf("a second vCPU read tables again: %v", err)
		}
	}
}

// TestHostileTables: loops, entries beyond the end, a table used at every level. Each page is read
// at most once.
func TestHostileTables(t *testing.T) {
	f := newTableFile(32)
	for frame := range uint64(32) {
		for i := range pagetable.Entries {
			f.put(frame, i, (frame*7+uint64(i)*13)%40) // some lie beyond
		}
	}
	for _, levels := range []int{4, 5} {
		for _, root := range []uint64{0, 31, 32, 1 << 39} {
			r := newTableReader(f, 32)
			f.read = nil
			if err := r.walk(pagetable.Mode{Levels: levels}, root); err != nil {
				t.Fatal(err)
			}
			if r.read > 32 || len(f.read) > 2*32 || root >= 32 && len(f.read) > 0 {
				t.Errorf("%d pages brought in %d reads", r.read, len(f.read))
			}
		}
	}
}

func TestALostTableIsNamed(t *testing.T) {
	f := newTableFile(64)
	f.put(1, 0, 2)
	f.put(2, 0, 3)
	f.lost = 3
	err := newTableReader(f, 64).walk(pagetable.Mode{Levels: 4}, 1)
	var lost *ram.LostError
	if !errors.As(err, &lost) || lost.GFN != 3 || !strings.Contains(lost.Sign, "page table of the guest") {
		t.Errorf("%v", err)
	}
	if d := cmp.Diff(ram.PageRun{First: 1, Count: 1}, f.read[0]); d != "" {
		t.Error(d)
	}
}
