package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/thawfs/thaw/index/pack"
)

// badgerKeys is an index in Badger, in this process. Badger writes through shared mappings, and trusts
// what it reads: a full disk, an exhausted quota or a damaged file may end the process. Therefore
// commands leave it to a keeper.
type badgerKeys struct {
	db  *badger.DB
	dir string
}

// What bounds the memory of Badger, however large the index is. A table that is being built takes five times
// its size or more, up to 18 of them are built at once, and the memory of eight is kept for the next ones: so
// tables are small, and those of all levels have the same size. With fewer than four tables in level 0 Badger
// never makes one large table of these, for which it takes 256 MiB: a writer waits for a compaction instead.
const (
	memTableSize    = 4 << 20
	tableSize       = 512 << 10
	levelZeroTables = 2 // a compaction begins
	levelZeroStall  = 3 // writers wait
	// maxValue is more than any value has: a memory table must have room for some.
	maxValue = 1 << 10
)

// indexPlace says where an index is.
type indexPlace struct {
	Dir string
	Key []byte // that it is encrypted with; empty: it is not
}

// indexPlace is the place of an index of the store.
func (s *Store) indexPlace(dir string) indexPlace {
	p := indexPlace{Dir: dir}
	if s.vault != nil {
		p.Key = s.vault.IndexKey()
	}
	return p
}

// openBadger opens the index at a place, or makes an empty one.
func openBadger(p indexPlace, log *slog.Logger) (_ keyStore, err error) {
	defer explain("open index", &err)
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	o := badger.DefaultOptions(p.Dir).
		WithLogger(badgerLog{log}).
		WithMemTableSize(memTableSize).WithNumMemtables(2).
		WithBaseTableSize(tableSize).WithValueThreshold(maxValue).
		WithNumLevelZeroTables(levelZeroTables).WithNumLevelZeroTablesStall(levelZeroStall).
		WithValueLogFileSize(1 << 20). // never used: all values are small
		WithCompression(options.ZSTD).WithZSTDCompressionLevel(1).
		WithChecksumVerificationMode(options.OnBlockRead).
		WithBlockCacheSize(8 << 20).
		WithNumCompactors(2).WithNumGoroutines(2).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithNumVersionsToKeep(1)
	o.TableSizeMultiplier = 1
	if len(p.Key) > 0 {
		o = o.WithEncryptionKey(p.Key).WithIndexCacheSize(8 << 20) // else it deciphers an index for each look
	}
	db, err := badger.Open(o)
	if err != nil {
		return nil, err
	}
	return &badgerKeys{db, p.Dir}, nil
}

// explain adds to an error what was being done. It makes a panic of Badger's an error.
func explain(what string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("it panicked: %v", r)
	}
	if *err != nil {
		*err = fmt.Errorf("%s: %w", what, *err)
	}
}

func (k *badgerKeys) close() (err error) {
	defer explain("close index", &err)
	err = k.db.Close()
	// Badger's notes about discarded values take 1 MiB, and there are no such values.
	_ = os.Remove(filepath.Join(k.dir, "DISCARD"))
	return err
}

func (k *badgerKeys) kill() { _ = k.close() } // nobody needs the error any more

func (k *badgerKeys) get(_ context.Context, key []byte) (value []byte, err error) {
	defer explain("read index", &err)
	err = k.db.View(func(tx *badger.Txn) error {
		it, err := tx.Get(key)
		if err != nil {
			return err
		}
		value, err = it.ValueCopy(nil)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	return value, err
}

func (k *badgerKeys) pages(_ context.Context, hashes []pack.Hash, refs []uint64) (err error) {
	defer explain("read index", &err)
	tx := k.db.NewTransaction(false)
	defer tx.Discard()
	for i, h := range hashes {
		key := pageKey(h)
		refs[i] = 0
		it, err := tx.Get(key[:])
		if errors.Is(err, badger.ErrKeyNotFound) {
			continue
		}
		if err == nil {
			err = it.Value(func(v []byte) error { refs[i] = parseRef(v); return nil })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *badgerKeys) scan(_ context.Context, kind byte, after []byte) (rows []row, err error) {
	defer explain("read index", &err)
	o := badger.DefaultIteratorOptions
	o.Prefix = []byte{kind}
	if len(after) == 0 {
		after = o.Prefix
	}
	err = k.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(o)
		defer it.Close()
		for it.Seek(after); it.Valid() && len(rows) < maxRows; it.Next() {
			item := it.Item()
			if bytes.Equal(item.Key(), after) {
				continue
			}
			v, err := item.ValueCopy(nil)
			if err != nil {
				return err
			}
			rows = append(rows, row{item.KeyCopy(nil), v})
		}
		return nil
	})
	return rows, err
}

func (k *badgerKeys) update(_ context.Context, rows []row) (err error) {
	defer explain("write index", &err)
	wb := k.db.NewWriteBatch()
	defer wb.Cancel()
	for _, r := range rows {
		if len(r.value) == 0 {
			err = wb.Delete(r.key)
		} else {
			err = wb.Set(r.key, r.value)
		}
		if err != nil {
			return err
		}
	}
	return wb.Flush()
}

// badgerLog passes Badger's warnings and errors to our log; the rest is for its developers.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any)   { l.log.Error("badger: " + fmt.Sprintf(f, a...)) }
func (l badgerLog) Warningf(f string, a ...any) { l.log.Warn("badger: " + fmt.Sprintf(f, a...)) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(string, ...any)       {}
