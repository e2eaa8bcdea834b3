package ram

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// After a checkpoint the memory is mapped from it: what the guest has not changed since is page
// cache of the file that was just written, and what it touches and changes from now on can be told
// to the page, as after a restore.
//
// The file has to be complete, on disk and in its place before that, for from then on the guest's
// memory depends on it. The guest need not wait so long. It goes on while the file is synced; what
// it changes meanwhile is counted from the mark on, read out of the old mapping and written into
// the new one:
//
//	pause, copy, mark, resume | sync, rename | pause, remap, resume
//
// A host without asynchronous write-protection cannot count from a mark. There the guest waits.

// Mark begins to count changes from zero. The guest must be paused.
func (m *Memory) Mark() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tracker == nil {
		m.tracker = newTracker(m.mapping)
	} else if m.tracker.exact() {
		_, dirty, err := m.scanLocked()
		if err != nil {
			return err
		}
		m.before = dirty // first: when only a part is protected, the tracker has lost some of it
		if err := m.tracker.protect(); err != nil {
			return err
		}
	}
	if m.marked = m.tracker.exact(); !m.marked {
		why := m.tracker.why
		return errors.Join(errors.New(why), m.unmark())
	}
	return nil
}

// unmark stops counting in memory that is not mapped from anything.
func (m *Memory) unmark() (err error) {
	if m.tracker != nil && !anyPrivate(m.pieces) {
		err = m.tracker.Close()
		m.tracker, m.before = nil, nil
	}
	return err
}

// Forget gives a mark up, after a checkpoint that came to nothing.
func (m *Memory) Forget() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marked = false
	return m.unmark()
}

// maxCarry is how many pages are taken out of the old mapping at once: 64 MiB.
const maxCarry = 1 << 14

// MaxRemap is how many runs of a differential checkpoint are mapped while the guest is paused:
// the longest. Each takes some microseconds, and breaks up the mapping. The other pages stay the
// copies that they are; of those it is known when they change, but not when they are touched.
const MaxRemap = 1024

// Remap puts a checkpoint behind the mapping. Its file has the bytes that the memory had at the
// mark, or has now, if there was no mark and the guest was paused all the time. Runs are the pages
// that the file has; the others stay where they are. The guest must be paused.
//
// It takes the file over, and gives the files that are not needed any more; they are to be closed. A
// failure may come when parts are mapped again already. They have the same bytes, so the guest can go
// on in either case, unless it is a *LostError.
func (m *Memory) Remap(file *os.File, runs []PageRun, b Base, limit int) (carried uint64,
	unused Files, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer func() { m.marked = false }()
	src := newSource(file)
	if err := tryMap(file, m.size); err != nil {
		return 0, Files{src}, err
	}
	since := wss.NewBitmap(m.size / pageSize)
	if m.marked {
		if _, since, err = m.tracker.scan(); err != nil {
			return 0, Files{src}, err
		}
	}
	touched, dirty, err := m.scanPast()
	if err != nil {
		return 0, Files{src}, err
	}
	m.past = past{touched, dirty}
	r := &remapping{mem: m, since: since}
	r.choose(runs, src, limit)
	for _, window := range carryWindows(since, maxCarry) {
		if err = r.move(window); err != nil {
			break
		}
	}
	open := append(sourcesOf(m.pieces), src)
	if err == nil {
		m.pieces, m.own = overlay(m.pieces, runs, src), r.own
		m.base, m.before, m.served = &b, since, nil
	} else {
		m.pieces = overlay(m.pieces, r.done, src)
		if m.before == nil {
			m.before = since
		} else {
			m.before = m.before.Or(since)
		}
	}
	needed := sourcesOf(m.pieces)
	unused = slices.DeleteFunc(open, func(s *source) bool { return slices.Contains(needed, s) })
	return since.Count(), unused, errors.Join(err, m.rearm())
}

// tryMap makes sure that a file can be mapped: one that cannot must not take the old memory's place.
func tryMap(file *os.File, size uint64) error {
	trial, err := mapFile(file, size, mapPrivate)
	if err != nil {
		return err
	}
	return trial.unmap()
}

// rearm makes a new tracker for a mapping that was made again.
func (m *Memory) rearm() (err error) {
	if m.tracker != nil {
		err = m.tracker.Close()
		m.tracker = nil
	}
	if !anyPrivate(m.pieces) {
		return err
	}
	err = errors.Join(err, advise(m.mapping))
	m.tracker = newTracker(m.mapping)
	return err
}

// carryWindows cuts the memory into windows, none with more changed pages than the limit.
func carryWindows(since *wss.Bitmap, limit uint64) (list []PageRun) {
	begin, n := uint64(0), uint64(0)
	for first, count := range since.Runs() {
		for n+count > limit {
			cut := first + limit - n
			list = append(list, PageRun{begin, cut - begin})
			count -= cut - first
			begin, first, n = cut, cut, 0
		}
		n += count
	}
	if begin < since.Len() {
		list = append(list, PageRun{begin, since.Len() - begin})
	}
	return list
}

// remapping is the work of one remap.
type remapping struct {
	mem    *Memory
	pieces []piece     // the pieces to map
	done   []PageRun   // what is
	own    *wss.Bitmap // unchanged pages that stay the mapping's own; nil: none
	since  *wss.Bitmap // pages changed since the mark
}

// choose divides the runs of a file into those to be mapped and those that stay.
func (r *remapping) choose(runs []PageRun, src *source, limit int) {
	r.own = r.mem.own
	pages := r.mem.size / pageSize
	limit = min(limit, max(maxPieces-len(r.mem.pieces), 0)/2)
	if len(runs) > 1 && len(runs) > limit {
		runs = slices.Clone(runs)
		slices.SortFunc(runs, func(a, b PageRun) int { return cmp.Compare(b.Count, a.Count) })
		rest := bitmapOf(runs[limit:], pages)
		if runs = runs[:limit]; r.own != nil {
			rest = rest.Or(r.own)
		}
		r.own = rest
		slices.SortFunc(runs, func(a, b PageRun) int { return cmp.Compare(a.First, b.First) })
	}
	if r.own != nil {
		r.own = r.own.AndNot(bitmapOf(runs, pages))
	}
	for _, run := range runs {
		r.pieces = append(r.pieces, piece{run, src})
	}
}

// move does a window of pages: takes out what changed since the mark, maps the file, puts that
// back.
func (r *remapping) move(window PageRun) error {
	type change struct {
		off  uint64
		data []byte
	}
	var changes []change
	for first, n := range r.since.Runs() {
		from, to := max(first, window.First), min(first+n, window.End())
		if from >= to {
			continue
		}
		c := change{from * pageSize, make([]byte, (to-from)*pageSize)}
		if _, err := r.mem.transfer(c.data, c.off, mapping.read); err != nil {
			return err
		}
		changes = append(changes, c)
	}
	err := r.place(window)
	// Also after a failure: what was mapped by then has lost them.
	for _, c := range changes {
		if _, e := r.mem.transfer(c.data, c.off, mapping.write); e != nil {
			return errors.Join(err, e)
		}
	}
	return err
}

// place maps what is to be mapped of a window, then lets the others begin again: they are unchanged,
// and are read from their files when they are touched next.
func (r *remapping) place(window PageRun) error {
	for _, p := range within(r.pieces, window) {
		if err := r.mem.place(p); err != nil {
			return err
		}
		r.done = append(r.done, p.PageRun)
	}
	return r.drop(window)
}

// drop takes unchanged pages out of the page table, all but those that stay.
func (r *remapping) drop(run PageRun) error {
	parts := []PageRun{run}
	if own := r.own; own != nil {
		parts = RunsOf(bitmapOf(parts, own.Len()).AndNot(own), int(run.Count)+1)
	}
	for _, p := range parts {
		if p.Count == 0 {
			continue
		}
		m := r.mem.mapping.part(p.First*pageSize, p.Count*pageSize)
		if err := m.advise(unix.MADV_DONTNEED); err != nil {
			return fmt.Errorf("drop %d pages: %w", p.Count, err)
		}
	}
	return nil
}
