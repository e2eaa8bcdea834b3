package fs

import (
	"encoding/binary"
	"sync"
)

// The handle of an open file of memory is the number of the request that opened it. No two opens have the
// same one, in any server of a connection. So an OPEN that is sent again is known for the same one, a
// RELEASE that is sent again is known for one that was counted, and the count of open files stays exact.

// An openKind is what is open. The values are in ledgers: they are never changed.
type openKind uint32

const (
	openMemory   openKind = 1 + iota // memory of an image or a clone
	openComposed                     // a composed file of an image
)

// An openRow is an open file.
type openRow struct {
	handle uint64
	slot   uint32
	kind   openKind
}

// opened notes an open file before its OPEN is answered.
func (l *ledger) opened(handle uint64, k ledgerKey, kind openKind) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rows[k]
	if r == nil {
		return // it could not be written
	}
	at, known := l.opens[handle]
	if !known {
		at = l.table.take()
		l.opens[handle] = at
	}
	l.writeOpen(at, openRow{handle, r.slot, kind})
}

// closed notes that a file was closed, after what a RELEASE does has been done.
func (l *ledger) closed(handle uint64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.opens[handle]; ok {
		delete(l.opens, handle)
		l.table.give(at)
		l.writeOpen(at, openRow{})
	}
}

// writeOpen writes a row of the table of open files. l.mu is held.
func (l *ledger) writeOpen(at uint32, o openRow) {
	var b [openSize]byte
	binary.LittleEndian.PutUint64(b[0:], o.handle)
	binary.LittleEndian.PutUint32(b[8:], o.slot)
	binary.LittleEndian.PutUint32(b[12:], uint32(o.kind))
	_, err := l.file.WriteAt(b[:], opensAt+int64(at)*openSize)
	l.check(err)
}

// readOpens reads where the open files are in the table.
func (l *ledger) readOpens() error {
	return l.eachOpen(func(at uint32, o openRow) {
		l.opens[o.handle] = at
		l.table.use(at)
	})
}

// open returns the open files.
func (l *ledger) open() (list []openRow, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.eachOpen(func(_ uint32, o openRow) { list = append(list, o) })
	return list, err
}

func (l *ledger) eachOpen(fn func(at uint32, o openRow)) error {
	return eachData(l.file, opensAt, holesAt, make([]byte, 64<<10), func(at int64, b []byte) {
		for ; len(b) >= openSize; at, b = at+openSize, b[openSize:] {
			o := openRow{
				binary.LittleEndian.Uint64(b[0:]), binary.LittleEndian.Uint32(b[8:]),
				openKind(binary.LittleEndian.Uint32(b[12:])),
			}
			if o.handle != 0 && o.kind != 0 {
				fn(uint32((at-opensAt)/openSize), o)
			}
		}
	})
}

// inherited are the handles of files that an earlier server has opened and nobody has closed yet.
type inherited struct {
	mu      sync.Mutex
	handles map[uint64]struct{}
}

func (h *inherited) add(handle uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.handles == nil {
		h.handles = make(map[uint64]struct{})
	}
	h.handles[handle] = struct{}{}
}

// take takes a handle out; false if it is not in.
func (h *inherited) take(handle uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, in := h.handles[handle]
	delete(h.handles, handle)
	return in
}
