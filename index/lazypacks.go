package index

import (
	"context"

	"github.com/thawfs/thaw/index/pack"
)

// lazyPacks opens packs as they are asked for, and keeps those used last open until release: for
// walks over the whole store, which may have more packs than a process may have files. It is used by
// one goroutine.
type lazyPacks struct {
	ctx   context.Context
	set   *packSet
	m     map[uint64]*lazyPack
	errs  map[uint64]error
	clock uint64
}

type lazyPack struct {
	*packEntry
	used uint64
}

// maxLazy is how many packs a walk keeps open.
const maxLazy = 64

func newLazyPacks(ctx context.Context, set *packSet) *lazyPacks {
	return &lazyPacks{ctx: ctx, set: set, m: map[uint64]*lazyPack{}, errs: map[uint64]error{}}
}

// get gives a pack. It is open until maxLazy others were asked for, or release; what it says without
// reading its blob it says for ever. The caller does not close it.
func (l *lazyPacks) get(number uint64) (*pack.Reader, error) {
	l.clock++
	if p := l.m[number]; p != nil {
		p.used = l.clock
		// Nobody replaces a pack meanwhile: that takes the writer's lock, which our caller has.
		return p.cur.Load().Reader, nil
	}
	if err := l.errs[number]; err != nil {
		return nil, err
	}
	e, err := l.set.pin(l.ctx, number)
	if err != nil {
		l.errs[number] = err
		return nil, err
	}
	if len(l.m) >= maxLazy {
		l.evict()
	}
	l.m[number] = &lazyPack{packEntry: e, used: l.clock}
	return e.cur.Load().Reader, nil
}

// evict closes the pack that was not used for longest.
func (l *lazyPacks) evict() {
	var oldest *lazyPack
	for _, p := range l.m {
		if oldest == nil || p.used < oldest.used {
			oldest = p
		}
	}
	delete(l.m, oldest.number)
	l.set.unpin(oldest.packEntry)
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
	for _, p := range l.m {
		l.set.unpin(p.packEntry)
	}
	clear(l.m)
}
