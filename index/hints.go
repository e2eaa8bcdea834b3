package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

// hints is the index of a store that is open for writing: the index on disk, which is opened when it is
// first needed, and the tail, which has the packs that are not in it yet (hintstail.go). A store in which
// the tail has all packs needs no index on disk. When that fails, at any time and for any reason, its
// directory is set aside, and another one is made from the packs when there are enough; when that fails
// too, one in memory takes its place until the store is closed. So its users never see its errors.
//
// It comes after Store.writer, and before the locks of packs.
type hints struct {
	s    *Store
	dir  string
	open func(ctx context.Context, dir string) (keyStore, error)

	sem     chan struct{}   // held (by sending) while what follows is used
	db      keyStore        // nil: not open
	indexed map[uint64]bool // packs that db has
	tail    *hintTail       // of all others, as of the last refresh
	current bool            // all packs are known that there were at the last refresh
	forced  bool            // the index on disk is needed, with all packs
	level   hintLevel
	cause   error // why there is no index on disk; nil while there is
	closed  bool
}

// hintLevel says what kind of index is used, or is to be tried next.
type hintLevel int

const (
	hintsFound  hintLevel = iota // the one that is there, or an empty one
	hintsAnew                    // one made anew, after one that failed
	hintsMemory                  // one in memory, after both
)

// errNoKeeper: the keeper cannot be started. Nothing is wrong with the index.
var errNoKeeper = errors.New("the keeper of the index cannot be started")

func newHints(s *Store, open func(context.Context, string) (keyStore, error)) *hints {
	return &hints{
		s: s, dir: filepath.Join(s.dir, indexDirName), open: open, sem: make(chan struct{}, 1),
		tail: newHintTail(),
	}
}

func (h *hints) lock(ctx context.Context) error {
	select {
	case h.sem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (h *hints) unlock() { <-h.sem }

// do calls op with the index on disk; if that fails, again with another one. It does not if none is
// needed. It fails only if ctx ends or the store is closed.
func (h *hints) do(ctx context.Context, op func(keyStore) error) error {
	for {
		db, _, err := h.ready(ctx, nil)
		if err != nil || db == nil {
			return err
		}
		if err = op(db); err == nil {
			return nil
		}
		if err := h.failed(ctx, db, err); err != nil {
			return err
		}
	}
}

// refresh makes the packs known that were written since it was called last.
func (h *hints) refresh(ctx context.Context, progress func(Progress)) error {
	if err := h.lock(ctx); err != nil {
		return err
	}
	h.current = false
	h.unlock()
	_, _, err := h.ready(ctx, progress)
	return err
}

// ready returns an index that knows the packs, and makes one if there is none: the one on disk, nil if
// none is needed, and the tail.
func (h *hints) ready(ctx context.Context, progress func(Progress)) (keyStore, *hintTail, error) {
	if err := h.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer h.unlock()
	for {
		if h.closed {
			return nil, nil, ErrClosed
		}
		if h.current {
			return h.db, h.tail, nil
		}
		db, err := h.bring(ctx, progress)
		if err == nil {
			h.db, h.current = db, true
			continue
		}
		h.db = nil
		if err := h.fail(ctx, db, err); err != nil {
			return nil, nil, err
		}
	}
}

// bring makes all packs known, and returns the index on disk; nil if none is needed. sem must be held.
func (h *hints) bring(ctx context.Context, progress func(Progress)) (keyStore, error) {
	if h.db != nil {
		return h.db, h.catchUp(ctx, progress)
	}
	if !h.wanted() {
		if ok, err := h.extend(ctx, h.unknown()); ok || err != nil {
			return nil, err
		}
	}
	db, err := h.begin(ctx)
	if err != nil {
		return db, err
	}
	return db, h.sync(ctx, db, progress, h.all())
}

// begin opens the next index to try. sem must be held.
func (h *hints) begin(ctx context.Context) (keyStore, error) {
	if h.level == hintsMemory {
		return newMemKeys(), nil
	}
	return h.open(ctx, h.dir)
}

// failed replaces db, which failed with err, by another index. It fails only if ctx ends.
func (h *hints) failed(ctx context.Context, db keyStore, err error) error {
	if err := h.lock(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	defer h.unlock()
	if h.db != db {
		return context.Cause(ctx) // another goroutine replaced it already
	}
	h.db = nil
	return h.fail(ctx, db, err)
}

// fail ends db (nil: it was never open), which failed with err, and goes on to the next level. sem
// must be held.
func (h *hints) fail(ctx context.Context, db keyStore, err error) error {
	h.indexed, h.current = nil, false
	if db != nil {
		db.kill()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx) // the operation was cancelled: the index may be sound
	}
	switch {
	case h.level == hintsMemory:
		return err
	case errors.Is(err, errNoKeeper):
		h.level, h.cause = hintsMemory, err
	case h.level == hintsFound:
		h.level = hintsAnew
		h.s.log.Warn("the index failed, another one is made from the packs", "err", err,
			"set_aside", h.setAside())
		return nil
	default:
		h.level, h.cause = hintsMemory, err
		// What was written so far is useless, and may fill the disk.
		if err := errors.Join(os.RemoveAll(h.dir), h.removeDamaged()); err != nil {
			h.s.log.Warn("the rest of a failed index cannot be removed", "err", err)
		}
	}
	h.s.log.Warn("there is no index on disk: this command uses one in memory", "err", err)
	return nil
}

const damagedSuffix = ".damaged-"

// setAside renames the index directory and returns its new name. One that was set aside before is
// removed. One that cannot be renamed is removed.
func (h *hints) setAside() string {
	if err := h.removeDamaged(); err != nil {
		h.s.log.Warn("an old damaged index stays", "err", err)
	}
	to := h.dir + damagedSuffix + time.Now().UTC().Format("20060102T150405Z")
	err := os.Rename(h.dir, to)
	if err == nil {
		return to
	}
	if !errors.Is(err, os.ErrNotExist) {
		err = errors.Join(err, os.RemoveAll(h.dir))
		h.s.log.Warn("the index cannot be set aside, and is removed", "err", err)
	}
	return ""
}

// removeDamaged removes what was set aside before.
func (h *hints) removeDamaged() error {
	entries, err := os.ReadDir(h.s.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), indexDirName+damagedSuffix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(h.s.dir, e.Name())))
		}
	}
	return err
}

// sync brings an index that was just opened up to date: it indexes the packs that it does not know, and
// forgets those that are gone. Few packs stay in the tail, unless all are wanted in the index. It fails
// if the index does, or if ctx ends. sem must be held.
func (h *hints) sync(ctx context.Context, db keyStore, progress func(Progress), all bool) error {
	v, err := db.get(ctx, metaKey(metaVersion))
	if err != nil {
		return err
	}
	if v != nil && !bytes.Equal(v, []byte{keyVersion}) {
		return fmt.Errorf("it is of version %x, want %d", v, keyVersion)
	}
	indexed := map[uint64]packInfo{}
	err = scanAll(ctx, db, rowPack, func(rows []row) error {
		for _, r := range rows {
			if len(r.key) == 9 {
				indexed[binary.BigEndian.Uint64(r.key[1:])] = parsePackRow(r.value)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var rows []row
	if v == nil {
		rows = append(rows, row{metaKey(metaVersion), []byte{keyVersion}})
	}
	gone := int64(0) // bytes, about, whose rows point to nothing
	h.indexed = map[uint64]bool{}
	numbers, _ := h.s.packs.numbers()
	for _, number := range numbers {
		info, _ := h.s.packs.info(number)
		was, known := indexed[number]
		delete(indexed, number)
		h.indexed[number] = known && was.bytes > 0
		if h.indexed[number] && !was.same(info) {
			gone += max(was.bytes-info.bytes, 1) // it was compacted: pages that the index knows may be gone
			rows = append(rows, packRowOf(number, info))
		}
	}
	h.tail = newHintTail()
	if err := h.index(ctx, db, h.unknown(), progress, all); err != nil {
		return err
	}
	for number, was := range indexed {
		rows = append(rows, row{key: packKey(number)})
		gone += max(was.bytes, 1)
	}
	if gone > 0 {
		before, err := db.get(ctx, metaKey(metaStale))
		if err != nil {
			return err
		}
		n, _ := binary.Uvarint(before)
		rows = append(rows, row{metaKey(metaStale), binary.AppendUvarint(nil, n+uint64(gone))})
	}
	return updateAll(ctx, db, rows)
}

// index puts packs into the tail, or into an index if they are many or all are wanted there.
func (h *hints) index(ctx context.Context, db keyStore, numbers []uint64, progress func(Progress),
	all bool) error {
	if !all {
		if ok, err := h.extend(ctx, numbers); ok || err != nil {
			return err
		}
	}
	return h.write(ctx, db, numbers, progress)
}

// indexPacks puts packs into an index, the newest first: if there is no room for all, these are the
// most useful.
func (h *hints) indexPacks(ctx context.Context, db keyStore, numbers []uint64,
	progress func(Progress)) error {
	if len(numbers) == 0 {
		return nil
	}
	m := newMeter(progress, "index", "packs", int64(len(numbers)))
	for _, n := range slices.Backward(numbers) {
		if err := h.s.indexPack(ctx, db, n); err != nil {
			return err
		}
		m.add(1)
	}
	return nil
}

// pages returns the refs that stand for hashes, as keyStore.pages.
func (h *hints) pages(ctx context.Context, hashes []pack.Hash, refs []uint64) error {
	db, tail, err := h.ready(ctx, nil)
	if err != nil {
		return err
	}
	var rest []pack.Hash
	var at []int
	for i, sum := range hashes {
		if refs[i] = tail.pages.ref(sum); refs[i] == 0 && db != nil {
			rest, at = append(rest, sum), append(at, i)
		}
	}
	found := make([]uint64, min(len(rest), maxRows))
	for len(rest) > 0 {
		n := min(len(rest), maxRows)
		clear(found)
		err := h.do(ctx, func(k keyStore) error { return k.pages(ctx, rest[:n], found[:n]) })
		if err != nil {
			return err
		}
		for i, ref := range found[:n] {
			refs[at[i]] = ref
		}
		rest, at = rest[n:], at[n:]
	}
	return nil
}

// node returns the ref that stands for a node; 0 if none does.
func (h *hints) node(ctx context.Context, sum pack.Hash) (ref uint64, err error) {
	_, tail, err := h.ready(ctx, nil)
	if err != nil {
		return 0, err
	}
	if ref := tail.nodes[sum]; ref != 0 {
		return ref, nil
	}
	err = h.do(ctx, func(k keyStore) error {
		v, err := k.get(ctx, nodeKey(sum))
		ref = parseRef(v)
		return err
	})
	return ref, err
}

// some says whether any page may be known.
func (h *hints) some(ctx context.Context) (bool, error) {
	db, tail, err := h.ready(ctx, nil)
	if err != nil {
		return false, err
	}
	return db != nil || tail.pages.count > 0, nil
}

// known returns how many pages the tail has.
func (h *hints) known(ctx context.Context) (uint64, error) {
	_, tail, err := h.ready(ctx, nil)
	if err != nil {
		return 0, err
	}
	return uint64(tail.pages.count), nil
}

// missing says why there is no index on disk; nil if there is, or nobody has asked for it yet.
func (h *hints) missing(ctx context.Context) error {
	if err := h.lock(ctx); err != nil {
		return err
	}
	defer h.unlock()
	return h.cause
}

// rebuild deletes the index in any case, and makes it again.
func (h *hints) rebuild(ctx context.Context, progress func(Progress)) error {
	if err := h.lock(ctx); err != nil {
		return err
	}
	if h.db != nil {
		h.db.kill()
		h.db = nil
	}
	h.level, h.cause = hintsAnew, nil
	h.indexed, h.current, h.forced = nil, false, true
	err := errors.Join(h.removeDamaged(), os.RemoveAll(h.dir))
	h.unlock()
	if err == nil {
		_, _, err = h.ready(ctx, progress)
	}
	if err == nil {
		err = h.missing(ctx)
	}
	if err != nil {
		return fmt.Errorf("rebuild index: %w", err)
	}
	return nil
}

// close closes the index. One that fails to close properly is not used again.
func (h *hints) close() {
	_ = h.lock(context.Background())
	defer h.unlock()
	h.closed = true
	if h.db == nil {
		return
	}
	if err := h.db.close(); err != nil {
		h.db.kill()
		h.s.log.Warn("the index was not closed properly; the next command makes it again",
			"err", err, "set_aside", h.setAside())
	}
	h.db = nil
	h.give()
}

// give hands the files of the index to the owner of the store, see blob.GiveTo.
func (h *hints) give() {
	err := filepath.WalkDir(h.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return blob.GiveTo(h.s.dir, path)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		h.s.log.Warn("the index still belongs to root", "err", err)
	}
}

// openKeys returns the function that opens Badger: in a keeper, or, without one, in this process.
func (s *Store) openKeys(keeper func() *exec.Cmd) func(context.Context, string) (keyStore, error) {
	return func(ctx context.Context, dir string) (keyStore, error) {
		if keeper == nil {
			return openBadger(s.indexPlace(dir), s.log)
		}
		return startKeeper(ctx, keeper(), s.lock, s.indexPlace(dir), keeperTimeout)
	}
}
