package pagetable

import "context"

// Mapping is a run of Count pages of the image from Page on that are mapped at consecutive addresses
// from Virtual on.
type Mapping struct {
	Virtual     uint64
	Page, Count uint64
	// Table says that this is not mapped memory but the page table that maps addresses from Virtual on.
	// It comes before them.
	Table bool
}

// Half is one half of an address space.
type Half bool

const (
	Lower Half = false // for programs
	Upper Half = true  // usually for the kernel
)

// mapper lists what address spaces map, one after another. It visits shared tables once.
//
// It has limits that no normal guest reaches, because the tables of a hostile guest may map memory any
// number of times. What exceeds them is left out.
type mapper struct {
	s      *Space
	seen   map[visit]bool
	tables uint64 // number of tables that may still be visited
	mapped uint64 // number of pages that may still be listed
}

// visit is a table used at a level, in either half of an address space.
type visit struct {
	frame uint64
	level int
}

func (s *Space) newMapper() *mapper {
	return &mapper{
		s: s, seen: map[visit]bool{}, tables: 4096 + s.pages/8, mapped: 1<<20 + 64*s.pages,
	}
}

// root calls fn for what a half of an address space maps, except through tables visited before, in the
// order of virtual addresses. An error is one of reading the image, or the end of ctx.
func (m *mapper) root(ctx context.Context, r Root, half Half, fn func(Mapping)) error {
	w := Walk{Memory: m.s, Mode: Mode{Levels: r.Levels}}
	w.Enter = func(p Place) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		return p.Level == r.Levels || m.enter(p, fn), nil
	}
	w.Entry = func(_ *Table, e *Entry) (into bool, err error) {
		if e.Upper() != bool(half) {
			return false, nil
		}
		if e.Kind == Leaf {
			m.leaf(e, fn)
		}
		return true, nil
	}
	return w.Root(r.GPA / PageSize)
}

// enter calls fn for a table that was not visited before. It returns false if it was, or at a limit.
func (m *mapper) enter(p Place, fn func(Mapping)) bool {
	v := visit{p.Frame, p.Level}
	if m.seen[v] || m.tables == 0 {
		return false
	}
	m.seen[v] = true
	m.tables--
	page, ok := m.s.page(p.Frame)
	if ok {
		fn(Mapping{Virtual: p.Virtual, Page: page, Count: 1, Table: true})
	}
	return ok
}

// leaf calls fn for the pages of an entry that are in the image. Others are devices or holes.
func (m *mapper) leaf(e *Entry, fn func(Mapping)) {
	for i := m.s.regionFrom(e.Frame); i < len(m.s.regions); i++ {
		x := m.s.regions[i]
		first := max(e.Frame, x.GPA/PageSize)
		end := min(e.Frame+e.Count, (x.GPA+x.Bytes)/PageSize)
		if first >= end {
			return
		}
		if m.mapped < end-first {
			m.mapped = 0 // that was all: a hostile guest could have us look on for ever
			return
		}
		m.mapped -= end - first
		fn(Mapping{
			Virtual: e.Virtual + (first-e.Frame)*PageSize,
			Page:    x.Offset/PageSize + first - x.GPA/PageSize, Count: end - first,
		})
	}
}
