package index

import "sync"

// lostPages is pages of an image that cannot be read, and why the first of them cannot. It may be
// used by many goroutines at once.
type lostPages struct {
	mu    sync.Mutex
	set   gfnSet
	first uint64
	err   error  // why first is lost
	count uint64 // all four guarded by mu
}

// add notes pages that are lost by damage. It returns false if err is not damage or l is nil.
func (l *lostPages) add(first, count uint64, err error) bool {
	if l == nil || !isDamage(err) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for gfn := first; gfn < first+count; gfn++ {
		if !l.set.add(gfn) {
			continue
		}
		l.count++
		if l.err == nil || gfn < l.first {
			l.first, l.err = gfn, err
		}
	}
	return true
}

// addAll notes the pages of an error.
func (l *lostPages) addAll(e *PagesError) {
	for _, gfn := range e.GFNs {
		l.add(gfn, 1, e.Err)
	}
}

// found takes a page out again.
func (l *lostPages) found(gfn uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.set.remove(gfn) {
		l.count--
	}
}

func (l *lostPages) has(gfn uint64) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set.has(gfn)
}

// runs returns the pages, ascending.
func (l *lostPages) runs() (runs []Run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range sortedKeys(l.set.m) {
		for i := range uint64(LeafPages) {
			gfn := n*LeafPages + i
			if !l.set.has(gfn) {
				continue
			}
			if last := len(runs) - 1; last >= 0 && runs[last].GFN+runs[last].Count == gfn {
				runs[last].Count++
			} else {
				runs = append(runs, Run{GFN: gfn, Count: 1})
			}
		}
	}
	return runs
}

// firstOf returns the first n pages of runs.
func firstOf(runs []Run, n int) (gfns []uint64) {
	for _, r := range runs {
		for gfn := r.GFN; gfn < r.GFN+r.Count && len(gfns) < n; gfn++ {
			gfns = append(gfns, gfn)
		}
	}
	return gfns
}

// Hole is bytes of a file that could not be read.
type Hole struct {
	Offset int64 `json:"offset"`
	Bytes  int64 `json:"bytes"`
}
