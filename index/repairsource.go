package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/thawfs/thaw/index/pack"
)

// search looks for the wanted pages everywhere.
func (r *repairer) search(ctx context.Context) error {
	numbers, _ := r.s.packs.numbers()
	m := newMeter(r.c.o.Progress, "search", "places", int64(len(numbers)+len(r.c.entries)+len(r.c.o.From)))
	for _, number := range numbers {
		if err := r.inPack(ctx, number); err != nil {
			return err
		}
		m.add(1)
	}
	for _, e := range r.c.entries {
		if err := r.inSegment(ctx, e); err != nil {
			return err
		}
		m.add(1)
	}
	for _, path := range r.c.o.From {
		if err := r.inExport(ctx, path); err != nil {
			return fmt.Errorf("from %s: %w", path, err)
		}
		m.add(1)
	}
	return nil
}

// inPack looks for other slots with the same hashes.
func (r *repairer) inPack(ctx context.Context, number uint64) error {
	if r.full() {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p, err := r.packs.get(number)
	if err != nil {
		return ignoreDamage(err)
	}
	hashes, err := p.ReadHashes(0, p.Slots())
	if err != nil {
		return ignoreDamage(err)
	}
	page := make([]byte, PageSize)
	for slot, h := range hashes {
		if have, wanted := r.found[h]; !wanted || have != nil || p.Dead(uint32(slot)) {
			continue
		}
		if err := p.ReadPage(uint32(slot), page); err == nil {
			r.take(page)
		} else if !isDamage(err) {
			return err
		}
	}
	return nil
}

// inSegment looks into the segment of a checkpoint.
func (r *repairer) inSegment(ctx context.Context, e *catalogEntry) error {
	if e.segment == 0 || r.full() {
		return nil
	}
	m, err := r.s.openDamaged(ctx, Version{Name: e.Name, ID: e.ID}, &lostPages{})
	if err != nil {
		return ignoreDamage(err)
	}
	defer m.Close()
	return m.eachInSegment(ctx, func(gfn uint64) bool {
		ref := m.pages.ref(gfn)
		d := r.c.damaged[ref>>24]
		slot := pack.Ref(ref).Slot()
		return ref != 0 && d != nil && (d.slots.has(slot) || d.needed.has(slot))
	}, func(_ uint64, page []byte) error {
		r.take(page)
		return nil
	})
}

// inExport looks through the memory of an export.
func (r *repairer) inExport(ctx context.Context, path string) error {
	file, err := memoryIn(path)
	if err != nil {
		return err
	}
	m, err := OpenMemory(file)
	if err != nil {
		return err
	}
	defer m.Close()
	extents, err := m.Extents()
	if err != nil {
		return err
	}
	buf := make([]byte, chunkPages*PageSize)
	for _, x := range extents {
		for gfn := x.GFN; gfn < x.GFN+x.Count && !r.full(); gfn += chunkPages {
			if err := ctx.Err(); err != nil {
				return err
			}
			b := buf[:min(chunkPages, x.GFN+x.Count-gfn)*PageSize]
			if _, err := m.ReadAt(b, int64(gfn)*PageSize); err != nil {
				return err
			}
			for ; len(b) > 0; b = b[PageSize:] {
				if page := b[:PageSize]; !isZero(page) {
					r.take(page)
				}
			}
		}
	}
	return nil
}

// memoryIn returns the memory of an export, which may have been salvaged.
func memoryIn(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !st.IsDir() {
		return path, nil
	}
	for _, name := range []string{fileMemory, fileMemory + salvagedSuffix} {
		file := filepath.Join(path, name)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", &ImageError{Path: path, Why: "the directory has no file \"memory\""}
}
