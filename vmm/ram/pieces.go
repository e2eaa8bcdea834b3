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

// source is a file with pages of an image, each at its guest physical address.
type source struct {
	file   *os.File
	shared bool // RAM of a machine that was started: the file is the memory itself
	remote bool // on a FUSE mount: its server may die
}

const fuseMagic = 0x65735546 // f_type of a FUSE mount

// newSource makes a source of a checkpoint's memory file.
func newSource(f *os.File) *source {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.Fd()), &st)
	s := &source{file: f, remote: err == nil && st.Type == fuseMagic}
	if s.remote {
		// What is read is what is asked for. What else may be wanted is for the server to know.
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM)
	}
	return s
}

// piece is a run of pages and the file that has them. An image is made of pieces, ascending, with
// no gaps: one, if all of it lies in one file; more, where a differential checkpoint has some pages
// and its parents the others.
type piece struct {
	PageRun
	src *source
}

// overlay returns the pieces of an image in which src has those runs. Both must ascend.
func overlay(under []piece, runs []PageRun, src *source) []piece {
	var out []piece
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
			if n < r.Count { // it goes on in the next piece
				runs = slices.Concat([]PageRun{{at, r.Count - n}}, runs[1:])
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

// Files are memory files that are open.
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

// smallPiece is how many pages are read without asking first whether they are a hole.
const smallPiece = 16

// readPages reads whole pages from the files behind them. empty: they are holes of the files, and
// were not looked at; p is then all zeros.
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

// dataOf returns the parts of the pieces that are no holes.
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

// readAt reads all of p. What cannot be read is lost memory.
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

// data returns the parts of a run of pages that are no holes. File systems that cannot tell have no
// holes.
func (s *source) data(r PageRun) (runs []PageRun, err error) {
	fd := int(s.file.Fd())
	for at, end := r.First, r.End(); at < end; {
		from, err := unix.Seek(fd, int64(at*pageSize), unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return runs, nil // only a hole is left
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
				Sign: fmt.Sprintf("the memory file does not tell what is at %#x", at*pageSize), Err: err}
		}
		first := max(uint64(from)/pageSize, at)
		at = max((uint64(to)+pageSize-1)/pageSize, at+1)
		if first < end {
			runs = append(runs, PageRun{first, min(at, end) - first})
		}
	}
	return runs, nil
}

// checkSize makes sure that the file is still whole: what is missing at its end would pass for a
// hole.
func (s *source) checkSize(size uint64) error {
	st, err := s.file.Stat()
	if err == nil && uint64(st.Size()) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return &LostError{Sign: "the memory file is cut off", Err: err}
	}
	return nil
}

// RunsOf lists the runs of a bitmap. If they are too many, runs that lie close to each other are
// joined: some pages more than necessary are saved then.
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

// copyChunk is how many bytes are read at once.
const copyChunk = 1 << 20

// Chunks cuts a run into pieces of a size to be read at once.
func Chunks(r PageRun) (list []PageRun) {
	const step = copyChunk / pageSize
	for at := r.First; at < r.End(); {
		n := min(r.End()-at, step-at%step)
		list = append(list, PageRun{at, n})
		at += n
	}
	return list
}
