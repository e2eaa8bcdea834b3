package uffd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

// fileSource is a checkpoint directory: on a mount, where opening its memory is the request to restore.
type fileSource struct {
	memory *os.File
	pages  uint64
	set    []index.Run
}

// OpenDirectory opens the memory of a checkpoint directory. Without its working set, or with one that cannot
// be read, which warn is told, each page comes when it is wanted.
func OpenDirectory(dir string, warn func(error)) (Source, error) {
	f, err := os.Open(filepath.Join(dir, "memory"))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && (st.Size() == 0 || st.Size()%index.PageSize != 0) {
		err = fmt.Errorf("%s has %d bytes, which are not whole pages", f.Name(), st.Size())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &fileSource{memory: f, pages: uint64(st.Size()) / index.PageSize}
	if s.set, err = readSet(filepath.Join(dir, "working-set"), s.pages); err != nil {
		warn(err)
	}
	return s, nil
}

// readSet reads a working set; none if there is no file.
func readSet(path string, pages uint64) (runs []index.Run, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	set, err := wss.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if set.ImagePages != pages {
		return nil, fmt.Errorf("%s is of an image of %d pages, this one has %d", path, set.ImagePages, pages)
	}
	for _, r := range set.Runs {
		runs = append(runs, index.Run{GFN: r.GFN, Count: r.Count})
	}
	return runs, nil
}

func (s *fileSource) Pages() uint64 { return s.pages }

func (s *fileSource) Zero(uint64) bool { return false }

func (s *fileSource) Read(first uint64, dst []byte) error {
	n, err := s.memory.ReadAt(dst, int64(first)*index.PageSize)
	if n == len(dst) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("page %d: %w", first+uint64(n)/index.PageSize, err)
}

func (s *fileSource) Page(gfn uint64, b *Buffer) ([]byte, error) {
	return b.page[:], s.Read(gfn, b.page[:])
}

// Beside is nothing: the mount's server brings neighbours into the page cache by itself.
func (s *fileSource) Beside(*Buffer) []uint64 { return nil }

// Near is nothing, too.
func (s *fileSource) Near(*Buffer) *index.Piece { return nil }

func (s *fileSource) Set() Pieces { return s.cut(s.set) }

func (s *fileSource) SetRuns() []index.Run { return s.set }

func (s *fileSource) All() Pieces { return s.cut([]index.Run{{GFN: 0, Count: s.pages}}) }

func (s *fileSource) Close() error { return s.memory.Close() }

// piecePages is how many pages a piece has at most.
const piecePages = 256

// cut makes pieces of runs.
func (s *fileSource) cut(runs []index.Run) Pieces {
	p := &filePieces{s: s}
	room := uint64(0)
	for _, r := range runs {
		for r.Count > 0 {
			if room == 0 {
				p.pieces, room = append(p.pieces, nil), piecePages
			}
			n := min(r.Count, room)
			last := &p.pieces[len(p.pieces)-1]
			*last = append(*last, index.Run{GFN: r.GFN, Count: n})
			r.GFN, r.Count, room = r.GFN+n, r.Count-n, room-n
		}
	}
	return p
}

type filePieces struct {
	s      *fileSource
	pieces [][]index.Run
}

func (p *filePieces) Len() int { return len(p.pieces) }

// Read leaves out runs that cannot be read whole.
func (p *filePieces) Read(_ context.Context, i int, to *index.Piece) error {
	if cap(to.Pages) < piecePages*index.PageSize {
		to.Pages = make([]byte, 0, piecePages*index.PageSize)
	}
	to.GFNs, to.Pages = to.GFNs[:0], to.Pages[:0]
	var lost *index.PagesError
	for _, r := range p.pieces[i] {
		at := len(to.Pages)
		dst := to.Pages[at : at+int(r.Count)*index.PageSize]
		err := p.s.Read(r.GFN, dst)
		for gfn := r.GFN; gfn < r.GFN+r.Count; gfn++ {
			if err == nil {
				to.GFNs = append(to.GFNs, gfn)
				continue
			}
			if lost == nil {
				lost = &index.PagesError{Name: filepath.Base(filepath.Dir(p.s.memory.Name())), Err: err}
			}
			lost.GFNs = append(lost.GFNs, gfn)
		}
		if err == nil {
			to.Pages = to.Pages[:at+len(dst)]
		}
	}
	if lost == nil {
		return nil
	}
	slices.Sort(lost.GFNs)
	return lost
}
