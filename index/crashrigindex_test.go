package index

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/pack"
)

// rigIndex is the index of the crash rig: what a crash leaves of it is what it was at that moment, or
// at any other one before.
type rigIndex interface {
	// use is called with the store, once it is open.
	use(s *Store)
	// copy notes what the index is now.
	copy()
	// atCrash is called at the moment of a crash, in the middle of whatever is being done.
	atCrash()
	// crash is called when the process is gone, and says what it has put in the place of the index.
	crash() string
}

// rigKeys is an index in memory. It forgets nothing but at a crash.
type rigKeys struct {
	r *rand.Rand

	mu     sync.Mutex
	rows   map[string][]byte   // guarded by mu
	copies []map[string][]byte // of rows, at moments gone by; guarded by mu
	last   map[string][]byte   // what the crash left; guarded by mu
}

var _ keyStore = (*rigKeys)(nil)

func newRigKeys(r *rand.Rand) *rigKeys { return &rigKeys{r: r, rows: map[string][]byte{}} }

func (k *rigKeys) use(s *Store) {
	s.hints.open = func(_ context.Context, dir string) (keyStore, error) {
		return k, os.MkdirAll(dir, 0o700) // nothing is swept where there is no directory
	}
}

func (k *rigKeys) copy() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.copies) > 8 {
		k.copies = slices.Delete(k.copies, 2, 3)
	}
	k.copies = append(k.copies, maps.Clone(k.rows))
}

func (k *rigKeys) atCrash() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = maps.Clone(k.rows)
}

func (k *rigKeys) crash() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	what := "the index as it was"
	switch n := k.r.IntN(10); {
	case n == 0:
		k.rows, what = map[string][]byte{}, "no index"
	case n < 4 && len(k.copies) > 0:
		i := k.r.IntN(len(k.copies))
		k.rows, what = maps.Clone(k.copies[i]), fmt.Sprintf("an index that is %d copies old", len(k.copies)-i)
	case k.last != nil:
		k.rows = k.last
	}
	k.last = nil
	return what
}

func (k *rigKeys) pages(_ context.Context, hashes []pack.Hash, refs []uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, h := range hashes {
		key := pageKey(h)
		refs[i] = parseRef(k.rows[string(key[:])])
	}
	return nil
}

func (k *rigKeys) get(_ context.Context, key []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rows[string(key)], nil
}

func (k *rigKeys) update(_ context.Context, rows []row) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range rows {
		if r.value == nil {
			delete(k.rows, string(r.key))
		} else {
			k.rows[string(r.key)] = slices.Clone(r.value)
		}
	}
	return nil
}

func (k *rigKeys) scan(_ context.Context, kind byte, after []byte) (rows []row, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, value := range k.rows {
		if key[0] == kind && key > string(after) {
			rows = append(rows, row{[]byte(key), value})
		}
	}
	sortRows(rows)
	return rows, nil
}

func (k *rigKeys) close() error { return nil }

// kill ends an index that failed; this one is only killed to be made again.
func (k *rigKeys) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rows = map[string][]byte{}
}

// rigBadger is the directory of Badger, in its keeper process.
type rigBadger struct {
	t      *testing.T
	r      *rand.Rand
	dir    string
	copies []string // of the directory, at moments gone by
	last   string   // the one that the crash left; "" if there was no such moment
	n      int
}

func newRigBadger(t *testing.T, r *rand.Rand, dir string) *rigBadger {
	return &rigBadger{t: t, r: r, dir: dir}
}

func (x *rigBadger) use(s *Store) { s.hints.open = s.openKeys(testKeeper) }

func (x *rigBadger) copy() { x.copyNow() }

// copyNow copies the index as it is, its process being in the middle of whatever it does.
func (x *rigBadger) copyNow() string {
	x.n++
	to := filepath.Join(filepath.Dir(x.dir), fmt.Sprint("index-copy-", x.n))
	if err := copySparse(x.dir, to); err != nil {
		x.t.Fatal(err)
	}
	x.copies = append(x.copies, to)
	if len(x.copies) > 6 {
		drop := x.r.IntN(3)
		if err := os.RemoveAll(x.copies[drop]); err != nil {
			x.t.Fatal(err)
		}
		x.copies = append(x.copies[:drop], x.copies[drop+1:]...)
	}
	return to
}

func (x *rigBadger) atCrash() { x.last = x.copyNow() }

func (x *rigBadger) crash() string {
	from, what := x.last, "the index as it was"
	switch n := x.r.IntN(10); {
	case n == 0:
		from, what = "", "no index"
	case n < 4 && len(x.copies) > 0:
		i := x.r.IntN(len(x.copies))
		from, what = x.copies[i], fmt.Sprintf("an index that is %d copies old", len(x.copies)-i)
	case from == "":
		return "the index as it is"
	}
	x.last = ""
	if err := os.RemoveAll(x.dir); err != nil {
		x.t.Fatal(err)
	}
	if from == "" {
		return what
	}
	if err := copySparse(from, x.dir); err != nil {
		x.t.Fatal(err)
	}
	return what
}

// copySparse copies the files of a directory, holes as holes. Of one that is not there it makes an
// empty one.
func copySparse(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			if err := copySparseFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func copySparseFile(from, to string) error {
	in, err := os.Open(from)
	if os.IsNotExist(err) {
		return nil // it went just now
	}
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(st.Size()); err != nil {
		return err
	}
	for at := int64(0); at < st.Size(); {
		start, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if err != nil {
			break // a hole to the end
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		section := io.NewSectionReader(in, start, end-start)
		if _, err := io.Copy(io.NewOffsetWriter(out, start), section); err != nil {
			return err
		}
		at = end
	}
	return nil
}
