package ram

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// Image is the memory of a checkpoint as a whole: the open files that have its pages. It is put
// together from above: the layers of differential checkpoints, the newest first, and at last the
// file that has all pages. It stays readable while the files are removed, but not while they are
// written to.
type Image struct {
	size   uint64
	pieces []piece
	root   *source // the file that has all pages
	files  Files   // all that are open
	layers []layer
}

// AddLayer opens a memory file that has some pages of the image, if the layers before have them not.
func (img *Image) AddLayer(path string, size uint64, runs []PageRun) error {
	src, err := img.open(path, size)
	if err == nil {
		img.layers = append(img.layers, layer{src, runs})
	}
	return err
}

// AddRoot opens the file that has all pages, and completes the image.
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

// layer is what a differential checkpoint has of an image.
type layer struct {
	src  *source
	runs []PageRun
}

// open opens a memory file. All of an image's are of one size; 0 is any.
func (img *Image) open(path string, size uint64) (*source, error) {
	f, err := os.Open(path)
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
		return nil, fmt.Errorf("%s has %d bytes, which is not a multiple of %d", path, want, pageSize)
	}
	return img.files[len(img.files)-1], nil
}

// Size is the size of the image in bytes.
func (img *Image) Size() int64 { return int64(img.size) }

// ReadAt reads the image.
func (img *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read of an image before its beginning")
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

// Extents returns the pages that may be something else than zeros.
func (img *Image) Extents() ([]PageRun, error) { return dataOf(img.pieces) }

// Close closes the files.
func (img *Image) Close() error { return img.release().Close() }

// release gives the open files away.
func (img *Image) release() Files {
	files := img.files
	img.files = nil
	return files
}
