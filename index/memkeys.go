package index

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/thawfs/thaw/index/pack"
)

// memKeys is an index in memory, for one command, if there can be none on disk. Its size is bounded:
// pages that it has no room for are stored again.
type memKeys struct {
	mu   sync.Mutex
	page map[[pageKeySize]byte]uint64 // guarded by mu
	rest map[string][]byte            // rows that are no pages; guarded by mu
}

var _ keyStore = (*memKeys)(nil)

// maxMemPages bounds a memKeys (about 100 MiB), and so does maxMemRows.
const (
	maxMemPages = 4 << 20
	maxMemRows  = 256 << 10
)

func newMemKeys() *memKeys {
	return &memKeys{page: map[[pageKeySize]byte]uint64{}, rest: map[string][]byte{}}
}

func (k *memKeys) pages(_ context.Context, hashes []pack.Hash, refs []uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, h := range hashes {
		refs[i] = k.page[[pageKeySize]byte(h[:])]
	}
	return nil
}

func (k *memKeys) get(_ context.Context, key []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rest[string(key)], nil
}

func (k *memKeys) update(_ context.Context, rows []row) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range rows {
		if r.key[0] == rowPage && len(r.key) == 1+pageKeySize {
			putRow(k.page, [pageKeySize]byte(r.key[1:]), parseRef(r.value), len(r.value) == 0, maxMemPages)
		} else {
			putRow(k.rest, string(r.key), slices.Clone(r.value), len(r.value) == 0, maxMemRows)
		}
	}
	return nil
}

func putRow[K comparable, V any](m map[K]V, key K, v V, del bool, limit int) {
	if del {
		delete(m, key)
	} else if _, known := m[key]; known || len(m) < limit {
		m[key] = v
	}
}

// scan returns all rows at once, without pages: an index that ends with the command needs no sweep.
func (k *memKeys) scan(_ context.Context, kind byte, after []byte) (rows []row, err error) {
	if after != nil {
		return nil, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(k.rest)) {
		if key[0] == kind {
			rows = append(rows, row{[]byte(key), k.rest[key]})
		}
	}
	return rows, nil
}

func (k *memKeys) close() error { return nil }
func (k *memKeys) kill()        {}
