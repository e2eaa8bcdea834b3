package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/pack"
)

// Keys in Badger, by their first byte:
//
//	m NAME             facts about the index itself
//	p NUMBER(8)        a pack: packRow
//	h HASH(6)          a page: its ref, big-endian without leading zero bytes
//	n HASH(16)         a full leaf or a branch: its node ref(8)
//
// Six bytes of a page's hash are a hint, not an answer: who finds a ref compares the whole hash,
// which stands in the pack. That keeps a page at about 12 bytes here; should two pages of a store
// ever share the six bytes, one of them may be stored twice.
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
	metaNext    = "next"  // number of the next pack
	metaStale   = "stale" // set while rows may point to what is not there any more
)

// keyDB is the Badger index. All of it can be made again from packs and roots.
type keyDB struct {
	db      *badger.DB
	dir     string
	ballast string

	mu      sync.Mutex
	written bool // since it was opened: closing will write a table; guarded by mu
}

const memTableSize = 8 << 20

// minFree is the least free space, in bytes, with which Badger is opened and written to, for a
// small index. Badger writes through shared mappings of sparse files: on a full disk that is a
// SIGBUS, which ends the process, and no error. So it must never come to that.
const minFree = 16 << 20

// ballastSize is set aside while there is something to flush, and given back just before: closing
// must not be what meets the full disk.
const ballastSize = 8 << 20

// checkSpace says whether Badger may write n bytes in dir: they are written to the log first, then
// to a table, then perhaps merged with other tables.
func checkSpace(dir string, n int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	need := minFree + 4*n + min(dirBytes(dir), 64<<20)
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%d MiB are free, the index needs %d: %w", free>>20, need>>20, unix.ENOSPC)
	}
	return nil
}

// dirBytes is what the files of a directory take on disk.
func dirBytes(dir string) (n int64) {
	entries, _ := os.ReadDir(dir) // what cannot be read takes nothing
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Name()), &st) == nil {
			n += st.Blocks * 512
		}
	}
	return n
}

// openKeyDB opens the index in dir, or makes an empty one. fresh says that it is empty.
func openKeyDB(dir string, log *slog.Logger) (k *keyDB, fresh bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, false, fmt.Errorf("open index: %w", err)
	}
	if err := checkSpace(dir, 0); err != nil {
		return nil, false, err
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.Remove(ballast); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("open index: %w", err)
	}
	o := badger.DefaultOptions(dir).
		WithLogger(badgerLog{log}).
		WithMemTableSize(memTableSize).WithNumMemtables(2).
		WithBaseTableSize(memTableSize).
		WithValueLogFileSize(1 << 20). // never used: all values are small
		WithCompression(options.ZSTD).WithZSTDCompressionLevel(1).
		WithBlockCacheSize(8 << 20).
		WithNumCompactors(2).WithNumGoroutines(2).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithNumVersionsToKeep(1)
	db, err := badger.Open(o)
	if err != nil {
		return nil, false, fmt.Errorf("open index: %w", err)
	}
	k = &keyDB{db: db, dir: dir, ballast: ballast}
	v, ok, err := k.get(metaKey(metaVersion))
	if err == nil && ok && !bytes.Equal(v, []byte{keyVersion}) {
		err = fmt.Errorf("open index: version %x, want %d", v, keyVersion)
	}
	if err != nil {
		return nil, false, errors.Join(err, k.close())
	}
	return k, !ok, nil
}

// close flushes and closes the index.
func (k *keyDB) close() error {
	_ = os.Remove(k.ballast)
	err := k.db.Close()
	// What Badger notes about discarded values is of no use without any, and a MiB by its size.
	_ = os.Remove(filepath.Join(k.dir, "DISCARD"))
	if err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// mayWrite makes sure that Badger can take n bytes more, and that closing will be possible too.
func (k *keyDB) mayWrite(n int64) error {
	if err := checkSpace(k.dir, n); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.written {
		return nil
	}
	f, err := os.OpenFile(k.ballast, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	defer f.Close()
	err = unix.Fallocate(int(f.Fd()), 0, 0, ballastSize)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		_ = os.Remove(k.ballast)
		return fmt.Errorf("index: %w", err)
	}
	k.written = true
	return nil
}

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

// get gives a copy of a value.
func (k *keyDB) get(key []byte) (value []byte, ok bool, err error) {
	err = k.db.View(func(tx *badger.Txn) error {
		it, err := tx.Get(key)
		if err != nil {
			return err
		}
		value, err = it.ValueCopy(nil)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read index: %w", err)
	}
	return value, true, nil
}

// scan calls fn for every row of one kind; key is without the kind. Both are valid in fn only.
func (k *keyDB) scan(kind byte, fn func(key, value []byte) error) error {
	o := badger.DefaultIteratorOptions
	o.Prefix = []byte{kind}
	err := k.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			if err := item.Value(func(v []byte) error { return fn(item.Key()[1:], v) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	return nil
}

// row is a change: a nil value deletes.
type row struct{ key, value []byte }

// update makes changes, in the order given. They are not one transaction: whatever part of them
// survives a crash, the next open makes good.
func (k *keyDB) update(rows []row) error {
	var size int64
	for _, r := range rows {
		size += int64(len(r.key)+len(r.value)) + 64
	}
	if err := k.mayWrite(size); err != nil {
		return err
	}
	wb := k.db.NewWriteBatch()
	defer wb.Cancel()
	for _, r := range rows {
		var err error
		if r.value == nil {
			err = wb.Delete(r.key)
		} else {
			err = wb.Set(r.key, r.value)
		}
		if err != nil {
			return fmt.Errorf("write index: %w", err)
		}
	}
	if err := wb.Flush(); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// sortRows brings rows into key order, which Badger takes fastest.
func sortRows(rows []row) {
	slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.key, b.key) })
}

// lookups reads many page rows in one view of the index.
type lookups struct{ tx *badger.Txn }

func (k *keyDB) lookups() *lookups { return &lookups{k.db.NewTransaction(false)} }
func (l *lookups) close()          { l.tx.Discard() }

// page gives the ref that stands for a page's hash; 0 if none does.
func (l *lookups) page(h pack.Hash) (ref uint64, err error) {
	key := pageKey(h)
	it, err := l.tx.Get(key[:])
	if errors.Is(err, badger.ErrKeyNotFound) {
		return 0, nil
	}
	if err == nil {
		err = it.Value(func(v []byte) error { ref = parseRef(v); return nil })
	}
	if err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	return ref, nil
}

// badgerLog gives Badger's warnings and errors to our log; the rest is for its developers.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Error("badger: " + fmt.Sprintf(f, a...)) }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn("badger: " + fmt.Sprintf(f, a...)) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(string, ...any)       {}
