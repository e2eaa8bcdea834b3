package fs

import (
	"slices"
	"sync"
)

// idleList are the entries whose image is open though no file is, oldest first.
type idleList struct {
	mu      sync.Mutex
	entries []*entry
}

// What images that nobody has open may take: so many, and, but for the newest, so many pages that are not
// zero, 64 GiB. A page takes some 16 bytes of the server, and 24 if it was pushed.
const (
	maxIdle      = 8
	maxIdlePages = 16 << 20
)

// add puts an entry in as the newest and returns those that are too many.
func (l *idleList) add(e *entry) (over []*entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(slices.DeleteFunc(l.entries, func(x *entry) bool { return x == e }), e)
	pages := uint64(0)
	for i, x := range slices.Backward(l.entries) {
		pages += x.copied()
		if n := len(l.entries) - i; n > maxIdle || n > 1 && pages > maxIdlePages {
			over = slices.Clone(l.entries[:i+1])
			l.entries = slices.Delete(l.entries, 0, i+1)
			break
		}
	}
	return over
}

// remove takes an entry out, if it is in.
func (l *idleList) remove(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = slices.DeleteFunc(l.entries, func(x *entry) bool { return x == e })
}

// drain takes all out.
func (l *idleList) drain() []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.entries
	l.entries = nil
	return all
}
