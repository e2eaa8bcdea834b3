package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"

	"github.com/thawfs/thaw/index/pack"
)

// Keys of the index, by their first byte:
//
//	m NAME             facts about the index itself
//	p NUMBER(8)        a pack whose pages and nodes are in the index: its generation and size
//	h HASH(6)          a page: its ref, big-endian without leading zero bytes
//	n HASH(16)         a full leaf or a branch: its node ref(8)
//
// Six bytes of a page's hash are only a hint: a ref that is found is believed after the whole hash,
// which the pack has, was compared. So a page takes about 12 bytes here. If two pages of a store have
// the same six bytes, one of them may be stored twice.
const (
	rowMeta = 'm'
	rowPack = 'p'
	rowPage = 'h'
	rowNode = 'n'
)

const (
	pageKeySize = 6
	// keyVersion is the version of what the keys and values mean. An index of another version is
	// made anew.
	keyVersion = 2
)

const (
	metaVersion = "version"
	// metaStale is set while rows may point to what is not there any more: to about so many bytes of
	// packs, an unsigned varint.
	metaStale = "stale"
)

// keyStore is what the store needs of its index. Its rows are hints: a lost row costs space, and a wrong
// row is noticed by its user, who compares what it points to. All methods may be called by many
// goroutines at once.
type keyStore interface {
	// pages puts the refs that stand for hashes into refs; 0 for one that is not known.
	pages(ctx context.Context, hashes []pack.Hash, refs []uint64) error
	// get returns the value of a key; nil if it has none.
	get(ctx context.Context, key []byte) (value []byte, err error)
	// update makes changes. After a crash any part of them may be missing.
	update(ctx context.Context, rows []row) error
	// scan returns the rows of a kind that come after a key, some of them: none when there are no more.
	scan(ctx context.Context, kind byte, after []byte) ([]row, error)
	// close makes what was changed durable and ends it.
	close() error
	// kill ends it without closing it.
	kill()
}

// row is a change: one without a value deletes.
type row struct{ key, value []byte }

// maxRows bounds what is asked for and answered at once: rows, and the pages of a lookup.
const maxRows = 4096

func metaKey(name string) []byte { return append([]byte{rowMeta}, name...) }

func packKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{rowPack}, number)
}

func nodeKey(h pack.Hash) []byte { return append([]byte{rowNode}, h[:]...) }

func pageKey(h pack.Hash) [1 + pageKeySize]byte {
	var k [1 + pageKeySize]byte
	k[0] = rowPage
	copy(k[1:], h[:])
	return k
}

func pageRow(h pack.Hash, ref pack.Ref) row {
	key := pageKey(h)
	return row{key[:], refValue(uint64(ref))}
}

func nodeRow(h pack.Hash, ref uint64) row {
	return row{nodeKey(h), binary.BigEndian.AppendUint64(nil, ref)}
}

// refValue is a ref as a value: big-endian without the leading zero bytes.
func refValue(ref uint64) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8), ref)
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

func parseRef(v []byte) uint64 {
	var ref uint64
	for _, c := range v {
		ref = ref<<8 | uint64(c)
	}
	return ref
}

func packRowOf(number uint64, info packInfo) row {
	v := binary.AppendUvarint(nil, uint64(info.generation))
	return row{packKey(number), binary.AppendUvarint(v, uint64(info.bytes))}
}

// parsePackRow returns values that match no pack for a malformed row. Older programs wrote a size of 0
// until all pages of a pack were in the index.
func parsePackRow(v []byte) packInfo {
	g, w := binary.Uvarint(v)
	if w <= 0 {
		return packInfo{}
	}
	n, w := binary.Uvarint(v[w:])
	if w <= 0 {
		return packInfo{}
	}
	return packInfo{generation: uint32(g), bytes: int64(n)}
}

// sortRows brings rows into key order, which Badger takes fastest.
func sortRows(rows []row) {
	slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.key, b.key) })
}

// scanAll calls fn for all rows of one kind, some at a time.
func scanAll(ctx context.Context, k keyStore, kind byte, fn func([]row) error) error {
	var after []byte
	for {
		rows, err := k.scan(ctx, kind, after)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := fn(rows); err != nil {
			return err
		}
		after = rows[len(rows)-1].key
	}
}

// updateAll makes any number of changes.
func updateAll(ctx context.Context, k keyStore, rows []row) error {
	for part := range slices.Chunk(rows, maxRows) {
		if err := k.update(ctx, part); err != nil {
			return err
		}
	}
	return nil
}
