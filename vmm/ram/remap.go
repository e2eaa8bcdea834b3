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

// After a checkpoint the memory is mapped from it. Pages that the guest has not changed since are page
// cache of the file that was just written, and the pages that it touches and changes from now on are
// known exactly, as after a restore.
//
// Before that, the file must be complete, on disk and under its final name, because the guest's memory
// then depends on it. The guest does not wait so long. It runs while the file is synced; the pages that
// it changes after the mark are tracked, and copied from the old mapping into the new one:
//
//	pause, copy, mark, resume | sync, rename | pause, remap, resume
//
// A host without asynchronous write-protection cannot track changes from a mark. There the guest waits.

// Mark begins to track changes for a following Remap. The guest must be paused.
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
		m.before = dirty // first, because a protect that fails halfway loses some changes
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

// unmark stops the tracking in memory that is not mapped from a checkpoint.
func (m *Memory) unmark() (err error) {
	if m.tracker != nil && !anyPrivate(m.pieces) {
		err = m.tracker.Close()
		m.tracker, m.before = nil, nil
	}
	return err
}

// Forget cancels a mark, after a failed checkpoint.
func (m *Memory) Forget() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marked = false
	return m.unmark()
}

// maxCarry is how many changed pages are carried over at once: 64 MiB.
const maxCarry = 1 << 14

// MaxRemap is how many runs of a differential checkpoint are mapped while the guest is paused; the
// longest are chosen. Each takes some microseconds and splits the mapping. The other pages stay private
// copies: for these changes are tracked, but touches are not.
const MaxRemap = 1024

// Remap maps the memory from a checkpoint. file has the bytes that the memory had at the mark or,
// without a mark, has now, because the guest was paused all the time. runs are the pages that the file
// has, of which at most limit runs are mapped; other pages stay as they are. carried is the number of
// pages that changed since the mark. The guest must be paused.
//
// The file belongs to the memory afterwards. The caller must close unused, the files that are no longer
// needed. If it fails, some parts may be mapped from the new file already. They have the same bytes, so
// the guest can continue in any case, unless the error is a *LostError.
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

// tryMap makes sure that a file can be mapped, before any of the old memory is replaced.
func tryMap(file *os.File, size uint64) error {
	trial, err := mapFile(file, size, mapPrivate)
	if err != nil {
		return err
	}
	return trial.unmap()
}

// rearm makes a new tracker after the memory was mapped again.
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

// carryWindows splits the memory into windows, none with more changed pages than the limit.
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
	own    *wss.Bitmap // unchanged pages that stay private copies; nil: none
	since  *wss.Bitmap // pages changed since the mark
}

// choose divides the runs of a file into those to be mapped and those that stay private copies.
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

// move remaps a window of pages: it copies out what changed since the mark, maps the file, and copies
// that back in.
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
	// Also after a failure: pages that were mapped by then have lost their changes.
	for _, c := range changes {
		if _, e := r.mem.transfer(c.data, c.off, mapping.write); e != nil {
			return errors.Join(err, e)
		}
	}
	return err
}

// place maps the file's pages of a window. The other unchanged pages are dropped from the page table,
// so that their next touch is seen; they are read from their files then.
func (r *remapping) place(window PageRun) error {
	for _, p := range within(r.pieces, window) {
		if err := r.mem.place(p); err != nil {
			return err
		}
		r.done = append(r.done, p.PageRun)
	}
	return r.drop(window)
}

// drop takes unchanged pages out of the page table, except private copies that stay.
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
