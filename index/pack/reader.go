package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/thawfs/thaw/index/blob"
)

// tailSize is how much of the end of a pack is read at once when it is opened, in bytes: the footer
// and, of most packs, the directory.
const tailSize = 64 << 10

// Reader reads one pack. All methods may be called by many goroutines at once.
type Reader struct {
	obj  blob.Object
	name string
	dec  *Decoder
	foot footer
	dir  *directory
}

// Open reads the footer and the directory of a pack. The Reader owns obj from then on; after an
// error it is closed. name is for error messages. The error of a file that is damaged or not a
// pack is a *CorruptError, that of another format a *VersionError.
func Open(obj blob.Object, name string, dec *Decoder) (*Reader, error) {
	r := &Reader{obj: obj, name: name, dec: dec}
	if err := r.open(); err != nil {
		obj.Close()
		return nil, err
	}
	return r, nil
}

func (r *Reader) open() error {
	size := r.obj.Size()
	tail := make([]byte, min(size, tailSize))
	if len(tail) < headerSize+footerSize {
		return r.corrupt("file", fmt.Errorf("%d bytes are too few", size))
	}
	err := r.read(tail, size-int64(len(tail)))
	if local(err) { // perhaps of what is read along
		tail = tail[:footerSize]
		err = r.read(tail, size-footerSize)
	}
	if err != nil {
		return err
	}
	f, err := r.footer(tail[len(tail)-footerSize:], size)
	if err != nil {
		return err
	}
	r.foot = f
	dir, err := r.section(f.dir, tail, "directory")
	if err != nil {
		return err
	}
	if r.dir, err = parseDirectory(dir, f); err != nil {
		return r.corrupt("directory", err)
	}
	return nil
}

// footer parses the footer of a pack of so many bytes.
func (r *Reader) footer(b []byte, size int64) (footer, error) {
	f, err := parseFooter(b, size)
	if err != nil {
		return f, r.corrupt("footer", err)
	}
	if f.version != formatVersion && f.version != tierVersion {
		return f, &VersionError{Pack: r.name, Got: f.version, Want: tierVersion}
	}
	return f, nil
}

// section returns the bytes of a section, from tail if they are in there.
func (r *Reader) section(s section, tail []byte, what string) ([]byte, error) {
	var b []byte
	if start := r.obj.Size() - int64(len(tail)); int64(s.off) >= start {
		b = tail[int64(s.off)-start:][:s.len]
	} else {
		b = make([]byte, s.len)
		if err := r.read(b, int64(s.off)); err != nil {
			return nil, err
		}
	}
	if crc32.Checksum(b, crcTable) != s.crc {
		return nil, r.corrupt(what, errChecksum)
	}
	return b, nil
}

func (r *Reader) corrupt(what string, err error) error {
	return &CorruptError{Pack: r.name, What: what, Err: err}
}

func (r *Reader) read(b []byte, off int64) error {
	_, err := r.obj.ReadAt(b, off)
	if errors.Is(err, blob.ErrDamaged) {
		return r.corrupt(fmt.Sprintf("range of %d bytes at %d", len(b), off), err)
	}
	if err != nil {
		return fmt.Errorf("read pack %s: %d bytes at %d: %w", r.name, len(b), off, err)
	}
	return nil
}

// Close closes the blob. No other call may be in progress.
func (r *Reader) Close() error { return r.obj.Close() }

// Name is the name given to Open.
func (r *Reader) Name() string { return r.name }

// Number and Generation say which pack this is, according to its footer.
func (r *Reader) Number() uint64 { return r.foot.number }

// ID is the identity of the pack, which all its generations have and no other pack; 0 if it was written
// by a program that gave none.
func (r *Reader) ID() uint64 { return r.foot.id }

// Generation counts the compactions of the pack.
func (r *Reader) Generation() uint32 { return r.foot.generation }

// Size is the size of the pack in bytes.
func (r *Reader) Size() int64 { return r.obj.Size() }

// Slots is the number of slots, dead ones included.
func (r *Reader) Slots() int { return len(r.dir.slots) }

// Dead says whether the page in slot was dropped by a compaction, or never existed.
func (r *Reader) Dead(slot uint32) bool {
	return int(slot) >= len(r.dir.slots) || r.dir.slots[slot].codec == codecDead
}

// Unit says where in the file the unit or the cluster with the page in slot begins, and how many pages it
// has. The slot must be there, and not be dead.
func (r *Reader) Unit(slot uint32) (offset int64, pages int) {
	e := r.dir.slots[slot]
	if e.codec == codecClustered {
		c := r.dir.clusters[e.off]
		return int64(c.off), int(c.pages)
	}
	return int64(e.off), e.pages()
}

// Blocks is the number of locality blocks.
func (r *Reader) Blocks() int { return len(r.dir.blocks) }

// BlockOf returns the block of a slot; ok is false if there is no such slot.
func (r *Reader) BlockOf(slot uint32) (block int, ok bool) {
	if int(slot) >= len(r.dir.slots) {
		return 0, false
	}
	return r.dir.blockOf(slot), true
}

// BlockSlots returns the slots of a block: first, first+1, ... first+count-1.
func (r *Reader) BlockSlots(block int) (first, count uint32) {
	first = r.dir.blocks[block].first
	return first, r.dir.blockEnd(block) - first
}

// BlockBytes is the number of bytes that a block takes in the file, without those of its pages that lie in
// clusters.
func (r *Reader) BlockBytes(block int) int {
	return int(r.dir.blocks[block].end - r.dir.blocks[block].off)
}

// Hashes returns the hash of every slot, the dead ones' too.
func (r *Reader) Hashes() ([]Hash, error) {
	b, err := r.section(r.foot.hashes, nil, "hashes")
	if err != nil {
		return nil, err
	}
	return hashesIn(b), nil
}

func hashesIn(b []byte) []Hash {
	hashes := make([]Hash, len(b)/HashSize)
	for i := range hashes {
		hashes[i] = Hash(b[i*HashSize:])
	}
	return hashes
}

// ReadHashes returns the hashes of count slots from first on. Unlike those of Hashes they are not
// verified: they are only compared with, and a damaged one matches no page.
func (r *Reader) ReadHashes(first uint32, count int) ([]Hash, error) {
	if uint64(first)+uint64(count) > uint64(len(r.dir.slots)) {
		return nil, r.corrupt("hashes", fmt.Errorf("there are %d", len(r.dir.slots)))
	}
	b := make([]byte, count*HashSize)
	if err := r.read(b, int64(r.foot.hashes.off)+int64(first)*HashSize); err != nil {
		return nil, err
	}
	return hashesIn(b), nil
}

// AreHashes says whether hashes are those that were written, by the checksum over all of them.
func (r *Reader) AreHashes(hashes []Hash) bool {
	crc := uint32(0)
	for i := range hashes {
		crc = crc32.Update(crc, crcTable, hashes[i][:])
	}
	return len(hashes) == r.Slots() && crc == r.foot.hashes.crc
}

// RecordInfo describes a record.
type RecordInfo struct {
	Kind   uint32
	Size   int   // bytes
	Stored int64 // bytes in the file; 0: it was dropped by a compaction
}

// Records is the number of records, dropped ones included.
func (r *Reader) Records() int { return len(r.dir.records) }

// Record describes record i.
func (r *Reader) Record(i int) RecordInfo {
	it := r.dir.records[i]
	return RecordInfo{Kind: it.kind, Size: int(it.raw), Stored: int64(it.stored)}
}

// ReadRecord returns the content of record i, in dst if that has the capacity for it.
func (r *Reader) ReadRecord(i int, dst []byte) ([]byte, error) { return r.readRecord(r, i, dst) }

// readRecord is ReadRecord out of what src has.
func (r *Reader) readRecord(src stored, i int, dst []byte) ([]byte, error) {
	what := func() string { return fmt.Sprintf("record %d", i) }
	if i < 0 || i >= len(r.dir.records) {
		return nil, r.corrupt(what(), fmt.Errorf("there are %d", len(r.dir.records)))
	}
	it := r.dir.records[i]
	if it.codec == codecDead {
		return nil, r.corrupt(what(), ErrDead)
	}
	if it.raw > maxRecord || it.stored < crcSize {
		return nil, r.corrupt(what(), errDecodedSize)
	}
	frame, err := r.item(src, it, saltRecord, uint32(i))
	if err != nil {
		return nil, r.itemError(what(), err)
	}
	dst = grown(dst, int(it.raw))
	if err := r.dec.decode(it.codec, dst, frame); err != nil {
		return nil, r.corrupt(what(), err)
	}
	return dst, nil
}

// item reads what is stored of a record or frame, its checksum verified and cut off, with
// zstdPrefix bytes of room before it.
func (r *Reader) item(src stored, it itemEntry, salt uint64, ordinal uint32) ([]byte, error) {
	buf := make([]byte, zstdPrefix+int(it.stored))
	if err := src.read(buf[zstdPrefix:], int64(it.off)); err != nil {
		return nil, err
	}
	return r.verified(buf, salt, ordinal)
}

// verified returns an item, behind zstdPrefix bytes of room, without its checksum if that is right.
func (r *Reader) verified(buf []byte, salt uint64, ordinal uint32) ([]byte, error) {
	end := len(buf) - crcSize
	want := binary.LittleEndian.Uint32(buf[end:])
	if checksum(buf[zstdPrefix:end], salt, r.foot.number, ordinal) != want {
		return nil, errChecksum
	}
	return buf[:end], nil
}

// itemError names what a failed item is, unless the blob could not be read at all.
func (r *Reader) itemError(what string, err error) error {
	if err == errChecksum {
		return r.corrupt(what, err)
	}
	return err
}
