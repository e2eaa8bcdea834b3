// Package ramfile reads and writes the memory of a running machine through the file that is its RAM.
//
// The file has the guest's RAM without the holes of its address space. A [Place] says where a part of
// guest-physical memory is in it.
package ramfile

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
	"github.com/thawfs/thaw/wss/scan"
)

const pageSize = 4096

// Place is a range of guest-physical memory and its offset in the file, in bytes. All three are
// multiples of 4096.
type Place struct{ GPA, Size, Offset uint64 }

// File is the RAM of a machine.
type File struct {
	*os.File
	Places []Place // ascending by address
}

// Pages returns the number of pages of the file, which is the image of a working set.
func (f File) Pages() (uint64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return uint64(st.Size()) / pageSize, nil
}

// RAM lists the places as regions of a scan.
func (f File) RAM() []scan.Region {
	var list []scan.Region
	for _, p := range f.Places {
		list = append(list, scan.Region{GFN: p.GPA / pageSize, Count: p.Size / pageSize,
			Page: p.Offset / pageSize})
	}
	return list
}

// ReadAt reads guest-physical memory.
func (f File) ReadAt(p []byte, gpa int64) (int, error) {
	return f.transfer(p, uint64(gpa), f.File.ReadAt)
}

// WriteAt writes guest-physical memory. The machine must be paused.
func (f File) WriteAt(p []byte, gpa int64) (int, error) { return f.transfer(p, uint64(gpa), f.write) }

func (f File) transfer(p []byte, gpa uint64, call func([]byte, int64) (int, error)) (done int, err error) {
	for done < len(p) {
		at, n := f.find(gpa + uint64(done))
		if n == 0 {
			return done, fmt.Errorf("no RAM at %#x: %w", gpa+uint64(done), io.ErrUnexpectedEOF)
		}
		n = min(n, uint64(len(p)-done))
		m, err := call(p[done:done+int(n)], int64(at))
		done += m
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// find returns the offset of an address in the file, and the number of bytes of RAM from there on; n is
// 0 if the address is not RAM.
func (f File) find(gpa uint64) (offset, n uint64) {
	i, found := slices.BinarySearchFunc(f.Places, gpa, func(p Place, gpa uint64) int {
		return cmp.Compare(p.GPA, gpa)
	})
	if !found {
		i--
	}
	if i < 0 || gpa-f.Places[i].GPA >= f.Places[i].Size {
		return 0, 0
	}
	in := gpa - f.Places[i].GPA
	return f.Places[i].Offset + in, f.Places[i].Size - in
}

// largest is the largest page of a hugetlbfs that is mapped for a write.
const largest = 1 << 30

// write writes through a mapping where the file system has no write(2): hugetlbfs.
func (f File) write(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	if n > 0 || !errors.Is(err, unix.EINVAL) {
		return n, err
	}
	var st unix.Statfs_t
	if serr := unix.Fstatfs(int(f.Fd()), &st); serr != nil || st.Bsize <= pageSize || st.Bsize > largest {
		return n, err
	}
	page := st.Bsize
	from := off / page * page
	if off+int64(len(p)) > from+page { // tables are pages, and lie within one of any size
		return n, err
	}
	b, merr := unix.Mmap(int(f.Fd()), from, int(page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if merr != nil {
		return n, fmt.Errorf("map %s to write to it: %w", f.Name(), merr)
	}
	copy(b[off-from:], p)
	return len(p), unix.Munmap(b)
}

// Present lists the pages of the file that have content: its holes are memory that the guest has never
// touched. A large page, which has only one access bit, often has such parts.
func (f File) Present() (*wss.Bitmap, error) {
	pages, err := f.Pages()
	if err != nil {
		return nil, err
	}
	present := wss.NewBitmap(pages)
	fd, size := int(f.Fd()), int64(pages*pageSize)
	for off := int64(0); off < size; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data up to the end
			return present, nil
		}
		if errors.Is(err, unix.EINVAL) { // a file system without holes
			present.SetRange(0, pages)
			return present, nil
		}
		if err != nil {
			return nil, fmt.Errorf("data of %s: %w", f.Name(), err)
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("data of %s: %w", f.Name(), err)
		}
		first, end := uint64(data)/pageSize, (uint64(min(hole, size))+pageSize-1)/pageSize
		present.SetRange(first, end-first)
		off = hole
	}
	return present, nil
}
