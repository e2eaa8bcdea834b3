package pack

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/klauspost/compress/zstd"

	"github.com/thawfs/thaw/index/blob"
)

// maxRecord bounds a record, in bytes.
const maxRecord = 64 << 20

var errFinished = errors.New("pack writer is finished")

// Writer writes one pack. It is used by one goroutine. After an error it gives that error for ever,
// and the pack must be aborted.
type Writer struct {
	blob   blob.Writer
	buf    *bufio.Writer
	size   uint64 // bytes written so far
	dir    directory
	hashes []byte
	head   header
	id     uint64
	zstd   *zstd.Encoder
	begun  bool  // the header is written
	err    error // sticky
}

// NewWriter begins a pack in w, which it owns from now on. number is 1..MaxNumber. Generation 0 is a new
// pack, with a new identity; a later one has the identity of the pack that Rewrite copies.
func NewWriter(w blob.Writer, number uint64, generation uint32) (*Writer, error) {
	if number == 0 || number > MaxNumber {
		return nil, fmt.Errorf("pack number %d: want 1 to %d", number, uint64(MaxNumber))
	}
	z, err := newZstdEncoder(zstd.SpeedDefault, 1<<20, true)
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	pw := &Writer{
		blob: w, buf: bufio.NewWriterSize(w, 1<<20), zstd: z, size: headerSize,
		head: header{version: formatVersion, number: number, generation: generation},
	}
	if generation == 0 {
		pw.id = newID()
	}
	return pw, nil
}

// Number is the number of the pack.
func (w *Writer) Number() uint64 { return w.head.number }

// newID makes an identity: a random number that is not 0.
func newID() (id uint64) {
	var b [8]byte
	for id == 0 {
		_, _ = rand.Read(b[:]) // it never fails: it ends the program instead
		id = binary.LittleEndian.Uint64(b[:])
	}
	return id
}

// Continue gives the pack the identity of r: it takes the place of that one.
func (w *Writer) Continue(r *Reader) { w.id = r.ID() }

// ID is the identity of the pack, 0 if it is not known.
func (w *Writer) ID() uint64 { return w.id }

// StoredBytes is about how large the pack would be if it were finished now.
func (w *Writer) StoredBytes() int64 {
	return int64(w.size) + footerSize + int64(len(w.hashes)) +
		3*int64(len(w.dir.slots)+len(w.dir.members)) +
		16*int64(len(w.dir.records)+len(w.dir.frames)+len(w.dir.clusters))
}

// begin writes the header, which comes before all else, when it is known what pack it is of.
func (w *Writer) begin() {
	if w.begun {
		return
	}
	w.begun = true
	w.size = 0
	w.write(w.head.append(nil))
}

func (w *Writer) write(parts ...[]byte) {
	w.begin()
	for _, p := range parts {
		if w.err != nil {
			return
		}
		n, err := w.buf.Write(p)
		w.size += uint64(n)
		if err != nil {
			w.err = fmt.Errorf("write pack %d: %w", w.head.number, err)
		}
	}
}

// room says whether n bytes more and their part of the directory fit.
func (w *Writer) room(n int) error {
	if w.err != nil {
		return w.err
	}
	if w.StoredBytes()+int64(n)+1<<20 > MaxBytes {
		return ErrFull
	}
	return nil
}

// AppendBlock adds a block; hashes has one entry a page. It gives the slot of the first page, the
// others follow. ErrFull leaves the Writer as it was.
func (w *Writer) AppendBlock(b *EncodedBlock, hashes []Hash) (first uint32, err error) {
	if len(hashes) != b.pages || b.pages == 0 {
		return 0, fmt.Errorf("append block: %d pages, %d hashes", b.pages, len(hashes))
	}
	if err := w.room(b.StoredBytes()); err != nil {
		return 0, err
	}
	if len(w.dir.slots)+b.pages > MaxSlots {
		return 0, ErrFull
	}
	if slices.ContainsFunc(b.units, func(u encodedUnit) bool { return u.codec == codecLZ4 }) {
		if w.begun && w.head.version < tierVersion {
			return 0, errors.New("append block: units of LZ4 in a pack that was begun without any")
		}
		w.head.version = tierVersion
	}
	first = uint32(len(w.dir.slots))
	blk := blockEntry{first: first, off: uint32(w.size)}
	for _, u := range b.units {
		w.appendUnit(u.codec, u.pages, b.data[u.off:u.end])
	}
	blk.end = uint32(w.size)
	w.dir.blocks = append(w.dir.blocks, blk)
	for i := range hashes {
		w.hashes = append(w.hashes, hashes[i][:]...)
	}
	return first, w.err
}

// appendUnit writes a unit and its checksum, or nothing at all for a dead one, and for pages that lie in
// clusters.
func (w *Writer) appendUnit(c codec, pages int, data []byte) {
	if c == codecClustered {
		w.dir.slots = append(w.dir.slots, slices.Repeat([]slotEntry{nowhere}, pages)...)
		return
	}
	slot, off := uint32(len(w.dir.slots)), w.size
	if c != codecDead {
		var crc [crcSize]byte
		binary.LittleEndian.PutUint32(crc[:], checksum(data, saltUnit, w.head.number, slot))
		w.write(data, crc[:])
	}
	for i := range pages {
		w.dir.slots = append(w.dir.slots, slotEntry{
			off: uint32(off), len: uint16(w.size - off), codec: c,
			pos: uint8(pages-1)<<4 | uint8(i),
		})
	}
}

// appendCluster adds a cluster of pages of the slots, which ascend, and will be in blocks that are
// appended later. So the clusters come first in a pack.
func (w *Writer) appendCluster(c codec, slots []uint32, data []byte) error {
	if len(w.dir.clusters) == 0 {
		if w.begun {
			return errors.New("append cluster: clusters come first in a pack")
		}
		w.head.version = tierVersion
	}
	if err := w.room(len(data) + crcSize); err != nil {
		return err
	}
	it := clusterEntry{
		off: uint32(w.size), first: uint32(len(w.dir.members)), pages: uint16(len(slots)), codec: c,
	}
	var crc [crcSize]byte
	number := uint32(len(w.dir.clusters))
	binary.LittleEndian.PutUint32(crc[:], clusterChecksum(data, w.head.number, number, slots))
	w.write(data, crc[:])
	it.stored = uint32(w.size) - it.off
	w.dir.clusters = append(w.dir.clusters, it)
	w.dir.members = append(w.dir.members, slots...)
	return w.err
}

// AppendRecord adds bytes that the store wants kept beside the pages: leaves, files, roots. kind is
// the caller's. The record is compressed if that helps. It gives the record's number in the pack.
func (w *Writer) AppendRecord(kind uint32, data []byte) (record int, err error) {
	if len(data) > maxRecord {
		return 0, fmt.Errorf("append record of %d bytes: want at most %d", len(data), maxRecord)
	}
	c, stored := codecRaw, data
	if z := w.zstd.EncodeAll(data, nil); len(z) < len(data) {
		c, stored = codecFrame, z
	}
	return w.appendItem(&w.dir.records, saltRecord, itemEntry{
		kind: kind, codec: c, raw: uint32(len(data)),
	}, stored)
}

func (w *Writer) appendItem(to *[]itemEntry, salt uint64, it itemEntry, data []byte) (int, error) {
	if err := w.room(len(data) + crcSize); err != nil {
		return 0, err
	}
	n := len(*to)
	if n >= MaxSlots {
		return 0, ErrFull
	}
	it.off = uint32(w.size)
	if it.codec != codecDead {
		var crc [crcSize]byte
		binary.LittleEndian.PutUint32(crc[:], checksum(data, salt, w.head.number, uint32(n)))
		w.write(data, crc[:])
	}
	it.stored = uint32(w.size) - it.off
	*to = append(*to, it)
	return n, w.err
}

// Finish writes directory and footer and commits the blob. It gives the size of the pack in bytes.
// After an error nothing of the pack is visible.
func (w *Writer) Finish() (int64, error) {
	f := footer{
		version: w.head.version, number: w.head.number, generation: w.head.generation, id: w.id,
		slots: uint32(len(w.dir.slots)), blocks: uint32(len(w.dir.blocks)),
		records: uint32(len(w.dir.records)), frames: uint32(len(w.dir.frames)),
		clusters: uint32(len(w.dir.clusters)),
	}
	w.begin()
	dir := w.dir.append(nil)
	f.dir = section{off: w.size, len: uint32(len(dir)), crc: crc32.Checksum(dir, crcTable)}
	f.hashes = section{
		off: w.size + uint64(len(dir)), len: uint32(len(w.hashes)),
		crc: crc32.Checksum(w.hashes, crcTable),
	}
	f.size = f.hashes.off + uint64(len(w.hashes)) + footerSize
	if w.err == nil {
		w.err = w.verify(f, dir)
	}
	w.write(dir, w.hashes, f.append(nil))
	if w.err == nil {
		w.err = w.buf.Flush()
	}
	if w.err == nil {
		w.err = w.blob.Commit()
	}
	if w.err != nil {
		err := fmt.Errorf("finish pack %d: %w", w.head.number, w.err)
		_ = w.Abort()
		return 0, err
	}
	w.err = errFinished
	return int64(f.size), nil
}

// verify reads the directory back before it is written: what a reader would refuse must not be
// committed.
func (w *Writer) verify(f footer, dir []byte) error {
	if err := f.check(int64(f.size)); err != nil {
		return err
	}
	_, err := parseDirectory(dir, f)
	return err
}

// Abort gives the pack up. After Finish it does nothing, so it can be deferred.
func (w *Writer) Abort() error {
	if w.err == errFinished {
		return nil
	}
	w.err = errFinished
	return w.blob.Abort()
}
