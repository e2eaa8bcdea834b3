package fs

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// discarded notes that pages of a clone were discarded, before the kernel is told so. The caller holds what
// keeps others from discarding pages of it.
func (l *ledger) discarded(k ledgerKey, all *bitmap, first, count uint64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	r := l.rows[k]
	l.mu.Unlock()
	if r == nil {
		return
	}
	end := min(first+count, all.pages)
	for page := first &^ 63; page < end; {
		b := make([]byte, min((end-page+63)/64*8, 64<<10))
		all.words(page, b)
		if _, err := l.file.WriteAt(b, holesOf(r.slot)+int64(page/8)); err != nil {
			l.mu.Lock()
			l.check(err)
			l.mu.Unlock()
			return
		}
		page += uint64(len(b)) * 8
	}
}

// whole notes that nothing is discarded of a clone any more.
func (l *ledger) whole(k ledgerKey) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.rows[k]; r != nil {
		l.fillHoles(r.slot)
	}
}

// fillHoles removes the holes of a slot. l.mu is held.
func (l *ledger) fillHoles(slot uint32) {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	l.check(os.NewSyscallError("fallocate", unix.Fallocate(int(l.file.Fd()), mode, holesOf(slot), holesFor)))
}

// holes returns what was discarded of a clone; nil if nothing was.
func (l *ledger) holes(slot uint32, pages uint64) (*bitmap, error) {
	all := newBitmap(pages)
	at := holesOf(slot)
	end := at + int64((pages+63)/64*8)
	err := eachData(l.file, at, end, make([]byte, 64<<10), func(off int64, b []byte) {
		for ; len(b) >= 8; off, b = off+8, b[8:] {
			word := binary.LittleEndian.Uint64(b)
			for bit := uint64(0); word != 0; bit, word = bit+1, word>>1 {
				if word&1 != 0 {
					all.addRange(uint64(off-at)*8+bit, 1)
				}
			}
		}
	})
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return nil, err
	}
	if all.len() == 0 {
		return nil, nil
	}
	return all, nil
}

func holesOf(slot uint32) int64 { return holesAt + int64(slot)*holesFor }

// words puts the bits of pages from a multiple of 64 on into b, 8 bytes for 64 pages.
func (b *bitmap) words(page uint64, dst []byte) {
	t := b.table.Load()
	for ; len(dst) >= 8; page, dst = page+64, dst[8:] {
		word := uint64(0)
		if t != nil && page < b.pages {
			if w := t.word(page, false); w != nil {
				word = w.Load()
			}
		}
		binary.LittleEndian.PutUint64(dst, word)
	}
}
