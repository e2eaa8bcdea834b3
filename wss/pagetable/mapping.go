package pagetable

// Mapping is Count pages of the image from Page on, which are neighbours in physical memory and in
// an address space, from the address Virtual on.
type Mapping struct {
	Virtual     uint64
	Page, Count uint64
	// Table: a table of pages that begin at Virtual, which the processor reads to use them. It
	// comes before them.
	Table bool
}

// Half is one half of an address space.
type Half bool

const (
	Lower Half = false // programs
	Upper Half = true  // the kernel, by custom
)

// mapper tells what address spaces map, one after another. What they share it visits once.
//
// It goes no further than it would in any sane guest, however the tables of a hostile one fold
// memory: what is beyond is left out.
type mapper struct {
	s      *Space
	seen   map[visit]bool
	tables uint64 // that may be visited still
	mapped uint64 // pages that may be told of still
}

// visit is a table used at a level: in the upper or the lower half of address spaces the same.
type visit struct {
	frame uint64
	level int
}

func (s *Space) newMapper() *mapper {
	return &mapper{
		s: s, seen: map[visit]bool{}, tables: 4096 + s.pages/8, mapped: 1<<20 + 64*s.pages,
	}
}

// root calls fn for what half of an address space maps that was not visited before, in the order of
// its virtual addresses. An error is one of reading the image.
func (m *mapper) root(r Root, half Half, fn func(Mapping)) error {
	w := Walk{Memory: m.s, Mode: Mode{Levels: r.Levels}}
	w.Enter = func(p Place) (bool, error) { return p.Level == r.Levels || m.enter(p, fn), nil }
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

// enter tells of a table that was not visited before.
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

// leaf notes the pages of an entry that are in the image. The others are devices, or holes.
func (m *mapper) leaf(e *Entry, fn func(Mapping)) {
	for _, x := range m.s.regions {
		first := max(e.Frame, x.GPA/PageSize)
		end := min(e.Frame+e.Count, (x.GPA+x.Bytes)/PageSize)
		if first >= end || m.mapped < end-first {
			continue
		}
		m.mapped -= end - first
		fn(Mapping{
			Virtual: e.Virtual + (first-e.Frame)*PageSize,
			Page:    x.Offset/PageSize + first - x.GPA/PageSize, Count: end - first,
		})
	}
}
