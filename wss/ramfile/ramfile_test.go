package ramfile

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFind(t *testing.T) {
	f := File{Places: []Place{{0, 0x1000, 0}, {0x3000, 0x2000, 0x1000}}}
	for gpa, want := range map[uint64][2]uint64{
		0: {0, 0x1000}, 0xfff: {0xfff, 1}, 0x1000: {0, 0}, 0x2fff: {0, 0},
		0x3000: {0x1000, 0x2000}, 0x4fff: {0x2fff, 1}, 0x5000: {0, 0}, 1 << 60: {0, 0},
	} {
		at, n := f.find(gpa)
		if n != want[1] || n > 0 && at != want[0] {
			t.Errorf("%#x: got %#x, %#x, want %#x", gpa, at, n, want)
		}
	}
}

// memfd is a file in memory, of huge pages if wanted.
func memfd(t *testing.T, flags int, size int64) File {
	t.Helper()
	fd, err := unix.MemfdCreate("ram", unix.MFD_CLOEXEC|flags)
	if err != nil {
		t.Skip(err)
	}
	f := File{File: os.NewFile(uintptr(fd), "ram"), Places: []Place{{0, 0x1000, 0x1000},
		{0x2000, uint64(size) - 0x2000, 0x2000}}}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Skip(err)
	}
	return f
}

// What is written at an address is read there, and lies at its offset of the file; whatever kind of
// file it is.
func TestTransfer(t *testing.T) {
	disk, err := os.Create(filepath.Join(t.TempDir(), "ram"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := disk.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	files := map[string]func(t *testing.T) File{
		"memfd":   func(t *testing.T) File { return memfd(t, 0, 4<<20) },
		"hugetlb": func(t *testing.T) File { return memfd(t, unix.MFD_HUGETLB, 4<<20) },
		"disk": func(t *testing.T) File {
			return File{File: disk, Places: []Place{{0, 0x1000, 0x1000}, {0x2000, 0x3fe000, 0x2000}}}
		},
	}
	for name, open := range files {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			// Nobody can be given a huge page that the host does not have.
			if name == "hugetlb" && !mappable(f) {
				t.Skip("the host has no huge pages to spare")
			}
			page := make([]byte, pageSize)
			page[77] = 42
			for gpa, off := range map[int64]int64{0: 0x1000, 0x3000: 0x3000, 0x250000: 0x250000} {
				page[78] = byte(off >> 12)
				if _, err := f.WriteAt(page, gpa); err != nil {
					t.Fatal(err)
				}
				var got [2]byte
				if _, err := f.File.ReadAt(got[:], off+77); err != nil || got != [2]byte{42, byte(off >> 12)} {
					t.Errorf("at offset %#x: %v, %v", off, got, err)
				}
				if _, err := f.ReadAt(got[:], gpa+77); err != nil || got != [2]byte{42, byte(off >> 12)} {
					t.Errorf("at address %#x: %v, %v", gpa, got, err)
				}
			}
			if _, err := f.WriteAt(page, 0x1000); err == nil {
				t.Error("a write to a hole")
			}
			present, err := f.Present()
			if err != nil || !present.Has(1) || !present.Has(0x250) || name == "memfd" && present.Has(0x100) {
				t.Errorf("present: %v, %v", present.Count(), err)
			}
		})
	}
}

// mappable says whether the file's pages can be mapped and written.
func mappable(f File) bool {
	b, err := unix.Mmap(int(f.Fd()), 0, 4<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return false
	}
	_ = unix.Munmap(b)
	return true
}
