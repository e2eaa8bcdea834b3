package qemu

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// Present implements scan.Presence: the holes of a sparse memory file are memory that the guest has
// never touched. (QEMU makes a sparse file, unless it is told to preallocate.) A large page, which has
// only one access bit, often has such parts.
func (g *Guest) Present() (*wss.Bitmap, error) {
	pages, err := g.Pages()
	if err != nil {
		return nil, err
	}
	present := wss.NewBitmap(pages)
	fd, size := int(g.ram.Fd()), int64(pages*pageSize)
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
			return nil, fmt.Errorf("qemu: data of %s: %w", g.ram.Name(), err)
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return nil, fmt.Errorf("qemu: data of %s: %w", g.ram.Name(), err)
		}
		first, end := uint64(data)/pageSize, (uint64(min(hole, size))+pageSize-1)/pageSize
		present.SetRange(first, end-first)
		off = hole
	}
	return present, nil
}
