package index

import (
	"context"

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
	m     map[uint64]*lazyPack
	clock uint64
	errs  map[uint64]error
	ids   map[uint64]uint64 // what get must find: identities as a root has them; see of
}

type lazyPack struct {
	*packEntry
	used uint64
}

// maxLazyPacks is how many packs a walk keeps open, where a process may have many files.
const maxLazyPacks = 256

func newLazyPacks(ctx context.Context, set *packSet) *lazyPacks {
	return &lazyPacks{
		ctx: ctx, set: set, limit: min(maxLazyPacks, max(fileLimit()/4, 1)),
		m: map[uint64]*lazyPack{}, errs: map[uint64]error{},
	}
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
	l.clock++
	if e := l.m[number]; e != nil {
		e.used = l.clock
		return withID(e.cur.Load().Reader, l.ids[number])
	}
	if err := l.errs[number]; err != nil {
		return nil, err
	}
	for len(l.m) >= l.limit {
		l.evict()
	}
	e, err := l.pin(number)
	if err != nil {
		if l.ctx.Err() == nil {
			l.errs[number] = err
		}
		return nil, err
	}
	l.m[number] = &lazyPack{e, l.clock}
	return withID(e.cur.Load().Reader, l.ids[number])
}

// pin pins a pack. If a writer removed its blob, a reader lists the packs again.
func (l *lazyPacks) pin(number uint64) (*packEntry, error) {
	e, err := l.set.pin(l.ctx, number)
	if err == nil || l.set.refresh == nil || !isGone(err) {
		return e, err
	}
	if err := l.set.refresh(l.ctx); err != nil {
		return nil, err
	}
	return l.set.pin(l.ctx, number)
}

// evict releases the pack that was used least recently.
func (l *lazyPacks) evict() {
	var oldest *lazyPack
	for _, e := range l.m {
		if oldest == nil || e.used < oldest.used {
			oldest = e
		}
	}
	delete(l.m, oldest.number)
	l.set.unpin(oldest.packEntry)
}

// hold returns a pack that stays open until done is called.
func (l *lazyPacks) hold(number uint64) (r *pack.Reader, done func(), err error) {
	if err := l.errs[number]; err != nil {
		return nil, nil, err
	}
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
	return readRecord(r, int(pack.Ref(ref).Slot()), kind)
}

func (l *lazyPacks) release() {
	for _, e := range l.m {
		l.set.unpin(e.packEntry)
	}
	clear(l.m)
}
