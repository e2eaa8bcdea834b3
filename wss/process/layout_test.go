package process

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss/pagetable"
	"github.com/thawfs/thaw/wss/ramfile"
)

// memfd is a sparse file in memory.
func memfd(t testing.TB, size int64) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC)
	if err != nil {
		t.Skip(err)
	}
	f := os.NewFile(uintptr(fd), "ram")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// linux writes the page tables of a kernel into RAM, as Linux has them: all of RAM is mapped at one
// distance, in pages of 2 MiB, by tables at the end of it; and its text, elsewhere. Several processes
// share that. It returns the frames of their roots.
func linux(t testing.TB, f ramfile.File, processes int) (roots []uint64) {
	t.Helper()
	last := f.Places[len(f.Places)-1]
	next := (last.GPA + last.Size) / pageSize
	take := func() uint64 { next--; return next }
	tables := map[uint64]*pagetable.Table{}
	at := func(frame uint64) *pagetable.Table {
		if tables[frame] == nil {
			tables[frame] = new(pagetable.Table)
		}
		return tables[frame]
	}
	kernel := take()
	mapLarge := func(virtual, gpa uint64) {
		frame := kernel
		for level := 4; level > 2; level-- {
			i := int(virtual >> (12 + 9*(level-1)) % 512)
			if at(frame).Entry(i) == 0 {
				at(frame).SetEntry(i, take()<<12|pagetable.Present|pagetable.Writable)
			}
			frame = at(frame).Entry(i) & pagetable.AddressMask >> 12
		}
		at(frame).SetEntry(int(virtual>>21%512), gpa|pagetable.Present|pagetable.Writable|pagetable.Large)
	}
	for _, p := range f.Places {
		for gpa := p.GPA; gpa < p.GPA+p.Size; gpa += 2 << 20 {
			mapLarge(0xffff_8880_0000_0000+gpa, gpa)
		}
	}
	for i := range uint64(16) {
		mapLarge(0xffff_ffff_8000_0000+i<<21, 1<<24+i<<21)
	}
	for range processes {
		root := take()
		roots = append(roots, root)
		for i := pagetable.UpperHalf; i < pagetable.Entries; i++ {
			at(root).SetEntry(i, at(kernel).Entry(i))
		}
		table := take()
		at(root).SetEntry(3, table<<12|pagetable.Present|pagetable.User)
		at(table).SetEntry(0, 0)
	}
	for frame, table := range tables {
		if _, err := f.WriteAt(table[:], int64(frame<<12)); err != nil {
			t.Fatal(err)
		}
	}
	return roots
}

// Wherever the hole below 4 GiB is, the guest's own map shows it.
func TestLayout(t *testing.T) {
	for _, c := range []struct{ size, below uint64 }{
		{1 * gib, 1 * gib}, {2 * gib, 2 * gib}, {3 * gib, 0x8000_0000}, {3 * gib, 0xb000_0000},
		{3 * gib, 3 * gib}, {7 * gib / 2, 0xc000_0000}, {4 * gib, 0x8000_0000}, {4 * gib, 0xb000_0000},
		{4 * gib, 0xc000_0000}, {4 * gib, 0xd000_0000}, {4 * gib, 0xe000_0000}, {9 * gib, 0xc000_0000},
	} {
		t.Run(fmt.Sprintf("%#x/%#x", c.size, c.below), func(t *testing.T) {
			f := ramfile.File{File: memfd(t, int64(c.size)), Places: placesFor(c.size, c.below)}
			linux(t, f, 5)
			got, err := layout(t.Context(), ramfile.File{File: f.File}, 0)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(f.Places, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// A place of the hole that no VMM has, or memory without a kernel, is not guessed; the caller may know.
func TestLayoutUnknown(t *testing.T) {
	f := ramfile.File{File: memfd(t, 4*gib), Places: placesFor(4*gib, gib)}
	linux(t, f, 5)
	if _, err := layout(t.Context(), f, 0); !errors.Is(err, ErrLayout) {
		t.Errorf("an unusual hole: %v", err)
	}
	if got, err := layout(t.Context(), f, gib); err != nil || !cmp.Equal(got, f.Places) {
		t.Errorf("told: %v, %v", got, err)
	}
	if _, err := layout(t.Context(), ramfile.File{File: memfd(t, 4*gib)}, 0); !errors.Is(err, ErrLayout) {
		t.Errorf("empty memory: %v", err)
	}
	if _, err := layout(t.Context(), f, 77); !errors.Is(err, ErrLayout) {
		t.Errorf("part of a page: %v", err)
	}
}
