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

// add puts an entry in as the newest and returns those that are too many.
func (l *idleList) add(e *entry, limit int) (over []*entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(slices.DeleteFunc(l.entries, func(x *entry) bool { return x == e }), e)
	if n := len(l.entries) - limit; n > 0 {
		over = slices.Clone(l.entries[:n])
		l.entries = slices.Delete(l.entries, 0, n)
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
