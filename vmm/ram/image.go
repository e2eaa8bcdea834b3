package ram

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Image is the complete memory of a checkpoint: the open files that contain its pages. It is put
// together from the newest to the oldest: first [Image.AddLayer] for each differential checkpoint, then
// [Image.AddRoot] for the file that has all pages. It stays readable when the files are removed, but
// not when they are changed.
type Image struct {
	size   uint64
	pieces []piece
	root   *source // the file with all pages
	files  Files   // all open files
	layers []layer
}

// AddLayer opens the memory file of a differential checkpoint, which has the pages of runs. Pages that
// a layer added before has are taken from that one. size is that of the file in bytes.
func (img *Image) AddLayer(path string, size uint64, runs []PageRun) error {
	src, err := img.open(path, size)
	if err == nil {
		img.layers = append(img.layers, layer{src, runs})
	}
	return err
}

// AddRoot opens the file that has all pages. The image is complete then.
func (img *Image) AddRoot(path string) (err error) {
	if img.root, err = img.open(path, 0); err != nil {
		return err
	}
	img.pieces = []piece{{PageRun{0, img.size / pageSize}, img.root}}
	for _, l := range slices.Backward(img.layers) {
		img.pieces = overlay(img.pieces, l.runs, l.src)
	}
	return nil
}

// layer is the part of an image that a differential checkpoint has.
type layer struct {
	src  *source
	runs []PageRun
}

// open opens a memory file and checks its size in bytes, which is the same for all files of an image;
// 0: any size.
func (img *Image) open(path string, size uint64) (*source, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // or a FIFO would be waited for
	if err != nil {
		return nil, err
	}
	img.files = append(img.files, newSource(f))
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if img.size == 0 {
		img.size = uint64(st.Size())
	}
	switch want := max(size, img.size); {
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case st.Size() == 0:
		return nil, fmt.Errorf("%s is empty", path)
	case uint64(st.Size()) != want || img.size != want:
		return nil, fmt.Errorf("%s has %d bytes, the state describes %d bytes of memory", path, st.Size(),
			want)
	case want%pageSize != 0:
		return nil, fmt.Errorf("%s has %d bytes, and must have a multiple of %d", path, want, pageSize)
	}
	return img.files[len(img.files)-1], nil
}

// Size is the size of the image in bytes.
func (img *Image) Size() int64 { return int64(img.size) }

// ReadAt reads the image.
func (img *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read an image: the offset is negative")
	}
	done := 0
	for done < len(p) && uint64(off) < img.size {
		gfn := uint64(off) / pageSize
		part := within(img.pieces, PageRun{gfn, min(uint64(len(p)-done)/pageSize+2,
			img.size/pageSize-gfn)})[0]
		n := min(uint64(len(p)-done), part.End()*pageSize-uint64(off))
		if err := part.src.readAt(p[done:done+int(n)], uint64(off)); err != nil {
			return done, err
		}
		done, off = done+int(n), off+int64(n)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// Extents returns the pages that may be other than zero, ascending.
func (img *Image) Extents() ([]PageRun, error) {
	runs, err := dataOf(img.pieces)
	for _, s := range img.files {
		if err == nil {
			err = s.checkSize(img.size)
		}
	}
	return runs, err
}

// Close closes the files.
func (img *Image) Close() error { return img.release().Close() }

// release passes the open files to the caller.
func (img *Image) release() Files {
	files := img.files
	img.files = nil
	return files
}
