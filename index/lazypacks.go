package index

import (
	"context"

	"github.com/thawfs/thaw/index/pack"
)

// lazyPacks pins packs as they are asked for, and keeps them until release: for walks over the
// whole store. It is used by one goroutine.
type lazyPacks struct {
	ctx  context.Context
	set  *packSet
	m    map[uint64]*packEntry
	errs map[uint64]error
}

func newLazyPacks(ctx context.Context, set *packSet) *lazyPacks {
	return &lazyPacks{ctx: ctx, set: set, m: map[uint64]*packEntry{}, errs: map[uint64]error{}}
}

// get gives a pack, open until release. The caller does not close it.
func (l *lazyPacks) get(number uint64) (*pack.Reader, error) {
	if e := l.m[number]; e != nil {
		// Nobody replaces a pack meanwhile: that takes the writer's lock, which our caller has.
		return e.cur.Load().Reader, nil
	}
	if err := l.errs[number]; err != nil {
		return nil, err
	}
	e, err := l.set.pin(l.ctx, number)
	if err != nil {
		l.errs[number] = err
		return nil, err
	}
	l.m[number] = e
	return e.cur.Load().Reader, nil
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
		l.set.unpin(e)
	}
	clear(l.m)
}
