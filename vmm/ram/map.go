package ram

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// maxPieces is the most pieces that a mapping may have. The kernel allows a process 65,530 mappings.
const maxPieces = 32000

// Map maps the memory of a checkpoint. The image's files belong to the result.
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
	// A parent whose pages are all replaced by newer ones is not needed.
	unused := slices.DeleteFunc(sources, func(s *source) bool {
		return slices.Contains(sourcesOf(m.pieces), s)
	})
	return m, unused.Close()
}

// mapOthers puts the pieces of other files over the mapping of the root. The longest are mapped, up to
// limit pieces (each splits the mapping in two places). The rest is copied.
//
// Mapping a piece takes some microseconds, whatever its length, and its pages are read on demand and
// shared with other machines through the page cache. Copying takes one or two microseconds for each
// page and reads all of them at once. It is only for images with very many small pieces.
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

// place maps a piece at its address.
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

// advise tells the kernel how a private mapping of a checkpoint is used. A fault shall read only the
// page that the guest needs: the server of the file knows better than the kernel's readahead what to
// fetch next. Huge pages are disabled, because a write to one page would drop the whole 2 MiB entry.
func advise(m mapping) error {
	for _, advice := range []int{unix.MADV_RANDOM, unix.MADV_NOHUGEPAGE} {
		// EINVAL: the kernel has no huge pages.
		if err := m.advise(advice); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("madvise: %w", err)
		}
	}
	return nil
}
