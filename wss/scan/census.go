package scan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/thawfs/thaw/wss/pagetable"
)

// maxSpaces bounds the number of known address spaces, and so the time of a sweep.
const maxSpaces = 1 << 13

// job is an uppermost table that a sweep walks.
type job struct {
	gfn   uint64
	owner uint64 // of the tables below: gfn, or the first of the pair that it belongs to
	space space
	// inUse: a vCPU uses it. sure: it, or its other view, is in use. All others are verified again at
	// each sweep.
	inUse, sure bool
	user        bool // its lower half is for user space
	used        bool // it has access bits set, in the lower half or in shared entries
	upper       bool // it has them in shared entries
}

// walkSpaces walks the tables of all address spaces: those of vCPUs, those found before, and, with page
// table isolation, the other view of each.
func (t *Tables) walkSpaces(w *walk, cpus []CPU) error {
	c := census{Tables: t, listed: map[uint64]bool{}, claims: map[uint64]claim{},
		copies: map[uint64]bool{}}
	if err := c.take(cpus); err != nil {
		return err
	}
	if t.located != nil {
		safe, err := c.kernelInUse(w)
		if err != nil {
			return err
		}
		c.flat = !safe
	}
	full, spaces := w.full, map[uint64]space{}
	for _, j := range c.jobs {
		s, ok, err := c.walk(w, j)
		if err != nil {
			return err
		}
		if w.full = full; !ok {
			t.counts.Refused++
		} else if len(spaces) < maxSpaces {
			spaces[j.gfn] = s
		}
	}
	t.spaces = spaces
	t.counts.Spaces = 0
	for _, s := range spaces {
		t.counts.Spaces += truth(s.alive)
	}
	return w.finish()
}

// walk walks one space as far as that is safe. It returns false if the table is not an address space.
func (c *census) walk(w *walk, j job) (space, bool, error) {
	s := j.space
	of := scope{shared: c.halves, flat: c.flat}
	switch {
	case j.sure:
		of = scope{}
	case c.copies[j.owner] && (c.located == nil || c.lives(j)):
		return s, false, nil
	case c.located != nil && s.armed && (c.flat || !j.used):
		return s, true, nil // nothing to clear, or nothing that may be cleared yet
	case !s.armed || !s.alive && !j.used:
		s.armed, w.blind = true, false
		of.shallow = true
		return s, true, w.root(s.mode, j.gfn, of)
	}
	if !j.inUse {
		w.full = w.full && (j.sure || c.located != nil)
		if ok, err := w.proves(s.mode, j.gfn, of, j.user); !ok || err != nil {
			return s, false, err
		}
	}
	w.blind = s.old
	s.old, s.armed, s.alive = false, true, true
	return s, true, w.root(s.mode, j.gfn, of)
}

// census finds out which address spaces a paused guest has.
type census struct {
	*Tables
	jobs   []job
	listed map[uint64]bool
	// claims says which space a table of a user space half belongs to. Two processes never share such a
	// table, so a space that shares one is a copy of the other, and is not changed.
	claims map[uint64]claim
	copies map[uint64]bool // by owner
	// flat: nothing below an uppermost table may be changed, as the kernel's tables are not proven.
	flat bool
}

type claim struct {
	owner uint64
	lives bool
}

// lives says that a vCPU has used the space for certain. If registers cannot be read, bits that were
// cleared and are set again say so.
func (c *census) lives(j job) bool {
	return j.space.seen || c.located != nil && (j.space.alive || j.space.armed && j.used)
}

// take lists each uppermost table once, and stores the kernel halves of those in use.
func (c *census) take(cpus []CPU) error {
	c.halves = c.halves[:0]
	c.counts.InUse, c.counts.NoTables = 0, 0
	if c.located != nil {
		c.halves, c.mode = append(c.halves, c.located.half), c.located.mode
	}
	for _, cpu := range cpus {
		m, gfn, ok := cpu.mode()
		if _, in := c.mem.ram.page(gfn); !ok || !in {
			c.counts.NoTables++
			continue
		}
		if err := c.inUse(gfn, m); err != nil {
			return err
		}
	}
	if len(c.jobs) == 0 && c.located == nil {
		return ErrNoTables
	}
	// Spaces that a vCPU once used claim their tables before spaces that were only found.
	known := slices.SortedFunc(maps.Keys(c.spaces), func(a, b uint64) int {
		return cmp.Or(truth(c.spaces[b].seen)-truth(c.spaces[a].seen),
			truth(c.spaces[b].alive)-truth(c.spaces[a].alive), cmp.Compare(a, b))
	})
	for _, gfn := range known {
		if err := c.known(gfn); err != nil {
			return err
		}
	}
	if len(c.jobs) == 0 {
		return ErrNoTables
	}
	// Shared tables are read once, so spaces with access bits set are walked first.
	slices.SortStableFunc(c.jobs, func(a, b job) int {
		return truth(a.space.old) - truth(b.space.old)
	})
	return nil
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// inUse adds the space of a vCPU to the list.
func (c *census) inUse(gfn uint64, m pagetable.Mode) error {
	if c.listed[gfn] {
		return nil
	}
	if c.counts.InUse++; c.counts.InUse == 1 {
		c.mode = m
	}
	v, err := c.views(gfn)
	if err != nil {
		return err
	}
	c.addHalf(v.table)
	if v.pair {
		c.addHalf(v.other)
	}
	for _, gfn := range v.frames(gfn) {
		s, ok := c.spaces[gfn]
		if !ok {
			s.old = !c.complete
		}
		s.mode, s.seen = m, true
		c.list(job{gfn: gfn, space: s, inUse: gfn == v.gfn, sure: true, user: gfn != v.gfn}, v)
	}
	return nil
}

// known adds a space to the list that no vCPU uses now, if it still exists.
func (c *census) known(gfn uint64) error {
	if c.listed[gfn] {
		return nil
	}
	v, err := c.views(gfn)
	if err != nil {
		return err
	}
	half := c.halves.matching(v.table)
	if half == nil || c.located != nil && !c.plausible(v.table) {
		return nil
	}
	for _, other := range v.frames(gfn) {
		s, ok := c.spaces[other]
		if !ok {
			s = c.spaces[gfn]
		}
		// Without a kernel half the lower half is not only for user space.
		c.list(job{gfn: other, space: s, user: half.used > 0}, v)
	}
	return nil
}

// list adds a job, unless the table is listed already.
func (c *census) list(j job, v views) {
	if c.listed[j.gfn] {
		return
	}
	c.listed[j.gfn] = true
	table := v.table
	if j.gfn != v.gfn {
		table = v.other
	}
	if j.owner = j.gfn; v.pair {
		j.owner &^= 1
	}
	var lower []uint64 // the tables below the lower half
	for i := range entries {
		entry := table.Entry(i)
		k, target, _ := j.space.mode.Classify(entry, j.space.mode.Levels)
		if k != pagetable.Directory || i >= upperHalf && !c.halves.have(i, entry) {
			continue
		}
		used := entry&pagetable.Accessed != 0
		j.used = j.used || used
		j.upper = j.upper || used && i >= upperHalf
		if i < upperHalf && (j.inUse || j.user) {
			lower = append(lower, target)
		}
	}
	for _, target := range lower {
		c.claim(j, target)
	}
	c.jobs = append(c.jobs, j)
}

// claim records which space a table belongs to, and finds copies.
func (c *census) claim(j job, table uint64) {
	first, ok := c.claims[table]
	switch {
	case !ok:
		c.claims[table] = claim{j.owner, c.lives(j)}
	case first.owner != j.owner && !c.lives(j):
		c.copies[j.owner] = true
		if !first.lives { // it is not known which of the two is the copy
			c.copies[first.owner] = true
		}
	case first.owner != j.owner && c.located != nil:
		if c.copies[first.owner] = true; first.lives { // both seem to live, so neither is certain
			c.copies[j.owner] = true
		}
		c.claims[table] = claim{j.owner, true}
	}
}

// views are an uppermost table and its neighbour in memory.
type views struct {
	gfn          uint64
	table, other *pagetable.Table
	// pair: the neighbour is the other view of the same space. Linux allocates the two as neighbours,
	// the kernel's at an even frame.
	pair bool
}

// frames lists the uppermost tables of the space.
func (v views) frames(gfn uint64) []uint64 {
	if v.pair {
		return []uint64{gfn, gfn ^ 1}
	}
	return []uint64{gfn}
}

func (t *Tables) views(gfn uint64) (views, error) {
	v := views{gfn: gfn, table: new(pagetable.Table), other: new(pagetable.Table)}
	if _, err := t.mem.ReadTable(gfn, v.table); err != nil {
		return v, err
	}
	if _, ok := t.mem.ram.page(gfn ^ 1); !ok {
		return v, nil
	}
	if _, err := t.mem.ReadTable(gfn^1, v.other); err != nil {
		return v, err
	}
	v.pair = paired(v.table, v.other)
	return v, nil
}

// addHalf stores the upper half of a table, once.
func (t *Tables) addHalf(table *pagetable.Table) {
	if t.halves.matching(table) == nil {
		t.halves = append(t.halves, newKernelHalf(table))
	}
}
