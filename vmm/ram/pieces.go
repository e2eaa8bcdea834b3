package ram

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// PageRun is a run of pages.
type PageRun struct {
	First uint64 `json:"first"` // frame number
	Count uint64 `json:"count"`
}

// End is the first page after the run.
func (r PageRun) End() uint64 { return r.First + r.Count }

// source is a file with pages of an image; the offset of a page is its guest physical address.
type source struct {
	file   *os.File
	shared bool // the memfd of a machine that was started: the file is the memory itself
	remote bool // on a FUSE mount: its server may die
}

const fuseMagic = 0x65735546 // f_type of a FUSE mount

// newSource makes a source of a checkpoint's memory file.
func newSource(f *os.File) *source {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &st)
	s := &source{file: f, remote: err == nil && st.Type == fuseMagic}
	if s.remote {
		// Read only what is requested: the server decides about readahead.
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	}
	return s
}

// piece is a run of pages and the file that has them. The pieces of an image are ascending, without
// gaps: one if all of it lies in one file, more if a differential checkpoint has some pages and its
// parents have the others.
type piece struct {
	PageRun
	src *source
}

// overlay returns the pieces of an image after src has replaced the pages of runs. Both lists are ascending.
func overlay(under []piece, runs []PageRun, src *source) []piece {
	var out []piece
	runs = slices.Clone(runs) // the first of them is cut where a piece ends; there may be millions
	add := func(r PageRun, s *source) {
		if n := len(out); n > 0 && out[n-1].src == s && out[n-1].End() == r.First {
			out[n-1].Count += r.Count
		} else if r.Count > 0 {
			out = append(out, piece{r, s})
		}
	}
	for _, p := range under {
		at := p.First
		for len(runs) > 0 && runs[0].First < p.End() {
			r := runs[0]
			add(PageRun{at, r.First - at}, p.src)
			n := min(r.End(), p.End()) - r.First
			add(PageRun{r.First, n}, src)
			at = r.First + n
			if n < r.Count { // the run continues in the next piece
				runs[0] = PageRun{at, r.Count - n}
				break
			}
			runs = runs[1:]
		}
		add(PageRun{at, p.End() - at}, p.src)
	}
	return out
}

// within returns the parts of the pieces that lie in a run.
func within(pieces []piece, r PageRun) []piece {
	first, _ := slices.BinarySearchFunc(pieces, r.First, func(p piece, gfn uint64) int {
		if p.End() <= gfn {
			return -1
		}
		return 1
	})
	var out []piece
	for _, p := range pieces[first:] {
		if p.First >= r.End() {
			break
		}
		from := max(p.First, r.First)
		out = append(out, piece{PageRun{from, min(p.End(), r.End()) - from}, p.src})
	}
	return out
}

// Files are open memory files.
type Files []*source

// Close closes them.
func (f Files) Close() error {
	var errs []error
	for _, s := range f {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}

// sourcesOf lists the files behind some pieces, each once.
func sourcesOf(pieces []piece) (list Files) {
	for _, p := range pieces {
		if !slices.Contains(list, p.src) {
			list = append(list, p.src)
		}
	}
	return list
}

// smallPiece is how many pages are read without checking first whether they are a hole.
const smallPiece = 16

// readPages reads whole pages from the files behind them. empty says that all of them are holes; p is
// zeroed then.
func readPages(pieces []piece, p []byte, first uint64) (empty bool, err error) {
	empty = true
	for _, part := range within(pieces, PageRun{first, uint64(len(p)) / pageSize}) {
		runs := []PageRun{part.PageRun}
		if part.Count > smallPiece {
			if runs, err = part.src.data(part.PageRun); err != nil {
				return false, err
			}
			clear(p[(part.First-first)*pageSize:][:part.Count*pageSize])
		}
		for _, r := range runs {
			empty = false
			b := p[(r.First-first)*pageSize:][:r.Count*pageSize]
			if err := part.src.readAt(b, r.First*pageSize); err != nil {
				return false, err
			}
		}
	}
	return empty, nil
}

// dataOf returns the pages of the pieces that are not holes of their files.
func dataOf(pieces []piece) (list []PageRun, err error) {
	for _, p := range pieces {
		runs, err := p.src.data(p.PageRun)
		if err != nil {
			return nil, err
		}
		for _, r := range runs {
			if n := len(list); n > 0 && list[n-1].End() == r.First {
				list[n-1].Count += r.Count
			} else {
				list = append(list, r)
			}
		}
	}
	return list, nil
}

// readAt fills p. If that fails, the error is a *LostError.
func (s *source) readAt(p []byte, off uint64) error {
	_, err := s.file.ReadAt(p, int64(off))
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &LostError{GFN: off / pageSize, Known: len(p) <= pageSize, Sign: fmt.Sprintf(
		"%d bytes at %#x of the memory file could not be read", len(p), off), Err: err}
}

// data returns the parts of a run of pages that are not holes. A file system that does not report holes
// has none.
func (s *source) data(r PageRun) (runs []PageRun, err error) {
	fd := int(s.file.Fd())
	for at, end := r.First, r.End(); at < end; {
		from, err := unix.Seek(fd, int64(at*pageSize), unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return runs, nil // the rest is a hole
		}
		to := from
		if err == nil {
			to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
		}
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
			return append(runs, PageRun{at, end - at}), nil
		case err != nil:
			return nil, &LostError{GFN: at,
				Sign: fmt.Sprintf("the memory file cannot be searched for data from %#x on", at*pageSize), Err: err}
		}
		first := max(uint64(from)/pageSize, at)
		at = max((uint64(to)+pageSize-1)/pageSize, at+1)
		if first < end {
			runs = append(runs, PageRun{first, min(at, end) - first})
		}
	}
	return runs, nil
}

// checkSize makes sure that the file was not truncated: missing data at its end would look like a hole.
func (s *source) checkSize(size uint64) error {
	st, err := s.file.Stat()
	if err == nil && uint64(st.Size()) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return &LostError{Sign: "the memory file was truncated", Err: err}
	}
	return nil
}

// RunsOf lists the runs of set bits, at most limit. To stay within the limit it joins runs that are
// close to each other, so the result may include pages that are not set.
func RunsOf(b *wss.Bitmap, limit int) []PageRun {
	var runs []PageRun
	for first, n := range b.Runs() {
		runs = append(runs, PageRun{first, n})
	}
	for gap := uint64(1); len(runs) > limit; gap *= 2 {
		joined := runs[:1]
		for _, r := range runs[1:] {
			if last := &joined[len(joined)-1]; r.First-last.End() <= gap {
				last.Count = r.End() - last.First
			} else {
				joined = append(joined, r)
			}
		}
		runs = joined
	}
	return runs
}

func bitmapOf(runs []PageRun, pages uint64) *wss.Bitmap {
	b := wss.NewBitmap(pages)
	for _, r := range runs {
		b.SetRange(r.First, r.Count)
	}
	return b
}

// copyChunk is the size of one read in bytes.
const copyChunk = 1 << 20

// Chunks splits a run into runs of at most 1 MiB, to be read one at a time.
func Chunks(r PageRun) (list []PageRun) {
	const step = copyChunk / pageSize
	for at := r.First; at < r.End(); {
		n := min(r.End()-at, step-at%step)
		list = append(list, PageRun{at, n})
		at += n
	}
	return list
}
