package ram

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// maxPieces is how many pieces a mapping may have. The kernel allows a process 65,530.
const maxPieces = 32000

// Map maps the memory of a checkpoint, and takes its files over.
func Map(img *Image, b Base) (*Memory, error) { return mapPieces(img, b, maxPieces/2) }

func mapPieces(img *Image, b Base, limit int) (m *Memory, err error) {
	m = &Memory{size: img.size, pieces: img.pieces, base: &b}
	sources := img.release()
	defer func() {
		if err != nil {
			err = errors.Join(err, sources.Close())
		}
	}()
	root := img.root
	if m.mapping, err = mapFile(root.file, m.size, mapPrivate); err != nil {
		return nil, err
	}
	if err := m.mapOthers(root, limit); err != nil {
		return nil, errors.Join(err, m.mapping.unmap())
	}
	if err := advise(m.mapping); err != nil {
		return nil, errors.Join(err, m.mapping.unmap())
	}
	m.tracker = newTracker(m.mapping)
	// A parent of which no page is left is not needed any more.
	unused := slices.DeleteFunc(sources, func(s *source) bool {
		return slices.Contains(sourcesOf(m.pieces), s)
	})
	return m, unused.Close()
}

// mapOthers puts the pieces that other files have over the mapping of the root: the longest are
// mapped, up to a limit (each cuts the mapping in two places); what is left is copied.
//
// Mapping a piece takes some microseconds, however long it is, and its pages stay in the page
// cache, shared with every other machine, until they are needed. Copying takes a microsecond or two
// a page and reads them all at once: it is for images of very many small pieces only.
func (m *Memory) mapOthers(root *source, limit int) error {
	others := slices.DeleteFunc(slices.Clone(m.pieces), func(p piece) bool { return p.src == root })
	if len(others) > limit {
		slices.SortFunc(others, func(a, b piece) int { return cmp.Compare(b.Count, a.Count) })
		m.own = wss.NewBitmap(m.size / pageSize)
		for _, p := range others[limit:] {
			if err := m.copyIn(p); err != nil {
				return err
			}
			m.own.SetRange(p.First, p.Count)
		}
		others = others[:limit]
	}
	for _, p := range others {
		if err := m.place(p); err != nil {
			return err
		}
	}
	return nil
}

// place maps a piece where it belongs.
func (m *Memory) place(p piece) error {
	off := p.First * pageSize
	return m.mapping.part(off, p.Count*pageSize).replace(p.src.file, off, mapPrivate)
}

// copyIn writes the pages of a piece into the mapping.
func (m *Memory) copyIn(p piece) error {
	buf := make([]byte, min(p.Count*pageSize, copyChunk))
	for at := p.First; at < p.End(); {
		b := buf[:min(uint64(len(buf)), (p.End()-at)*pageSize)]
		if err := p.src.readAt(b, at*pageSize); err != nil {
			return err
		}
		if _, err := m.transfer(b, at*pageSize, mapping.write); err != nil {
			return err
		}
		at += uint64(len(b)) / pageSize
	}
	return nil
}

// advise says how a private mapping of a checkpoint is used. A fault is to fetch the page that the
// guest needs and no other: what else is worth fetching is known to whoever serves the file, not to
// the kernel's read-ahead. And page by page: a 2 MiB entry would be dropped whole when one of its
// pages is written.
func advise(m mapping) error {
	for _, advice := range []int{unix.MADV_RANDOM, unix.MADV_NOHUGEPAGE} {
		// EINVAL: a kernel without huge pages.
		if err := m.advise(advice); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("madvise: %w", err)
		}
	}
	return nil
}
