package index

import (
	"context"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/pack"
)

// lazyPacks pins packs as they are asked for, for walks over the whole store, and keeps the ones that
// were used last: a store may have more packs than the process may have files. It is used by one
// goroutine.
type lazyPacks struct {
	ctx   context.Context
	set   *packSet
	limit int
	lru   *simplelru.LRU[uint64, *packEntry]
	errs  map[uint64]error
	ids   map[uint64]uint64 // what get must find: identities as a root has them; see of
}

// maxLazyPacks is how many packs a walk keeps open, where a process may have many files.
const maxLazyPacks = 256

func newLazyPacks(ctx context.Context, set *packSet) *lazyPacks {
	return newSomePacks(ctx, set, 1)
}

// newSomePacks is newLazyPacks for one of several walks at the same time, which share what a process may
// have open.
func newSomePacks(ctx context.Context, set *packSet, walks int) *lazyPacks {
	l := &lazyPacks{
		ctx: ctx, set: set, limit: max(min(maxLazyPacks, fileLimit()/4)/walks, 1), errs: map[uint64]error{},
	}
	l.lru, _ = simplelru.NewLRU(l.limit, func(_ uint64, e *packEntry) { set.unpin(e) }) // limit > 0
	return l
}

// fileLimit is how many files this process may have open.
func fileLimit() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil || r.Cur > 1<<20 {
		return 1 << 20
	}
	return int(r.Cur)
}

// of says whose packs are asked for from now on: those that a root means. Any other pack in the place of
// one is an error, as a damaged one is.
func (l *lazyPacks) of(r *root) { l.ids = r.top.ids }

// get returns a pack, which is open until another one is asked for; hold keeps one for longer. The
// caller does not close it.
func (l *lazyPacks) get(number uint64) (*pack.Reader, error) {
	e, ok := l.lru.Get(number)
	if !ok {
		if l.lru.Len() == l.limit {
			l.lru.RemoveOldest() // before another one is opened
		}
		var err error
		if e, err = l.pin(number); err != nil {
			return nil, err
		}
		l.lru.Add(number, e)
	}
	r := e.cur.Load().Reader
	if err := hasID(r, l.ids[number]); err != nil {
		return nil, err
	}
	return r, nil
}

// pin pins a pack. If a writer removed its blob, a reader lists the packs again.
func (l *lazyPacks) pin(number uint64) (*packEntry, error) {
	if err := l.errs[number]; err != nil {
		return nil, err
	}
	e, err := l.set.pin(l.ctx, number, 0)
	if l.set.refresh != nil && isGone(err) {
		if err = l.set.refresh(l.ctx); err == nil {
			e, err = l.set.pin(l.ctx, number, 0)
		}
	}
	if err != nil && l.ctx.Err() == nil {
		l.errs[number] = err
	}
	return e, err
}

// hold returns a pack that stays open until done is called.
func (l *lazyPacks) hold(number uint64) (r *pack.Reader, done func(), err error) {
	e, err := l.pin(number)
	if err != nil {
		return nil, nil, err
	}
	return e.cur.Load().Reader, func() { l.set.unpin(e) }, nil
}

// node implements nodes.
func (l *lazyPacks) node(ref uint64, kind uint32) ([]byte, error) {
	r, err := l.get(ref >> 24)
	if err != nil {
		return nil, err
	}
	return readNode(r, r.ReadRecord, ref, kind)
}

func (l *lazyPacks) release() { l.lru.Purge() }
