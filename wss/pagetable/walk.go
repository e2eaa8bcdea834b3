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

// Walker walks address spaces, one after another. What they share it visits once.
//
// It goes no further than it would in any sane guest, however the tables of a hostile one fold
// memory: what is beyond is left out.
type Walker struct {
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

// Walk makes a walker that has seen nothing.
func (s *Space) Walk() *Walker {
	return &Walker{
		s: s, seen: map[visit]bool{}, tables: 4096 + s.pages/8, mapped: 1<<20 + 64*s.pages,
	}
}

// Half is one half of an address space.
type Half bool

const (
	Lower Half = false // programs
	Upper Half = true  // the kernel, by custom
)

// Root calls fn for what half of an address space maps that was not visited before, in the order of
// its virtual addresses. An error is one of reading the image.
func (w *Walker) Root(r Root, half Half, fn func(Mapping)) error {
	var t table
	ok, err := w.s.table(r.GPA/pageSize, &t)
	if !ok || err != nil {
		return err
	}
	first := 0
	if half == Upper {
		first = upperHalf
	}
	return w.entries(&t, 0, r.Levels, r.Levels, first, first+upperHalf, fn)
}

// entries walks some entries of a table that maps addresses from base on.
func (w *Walker) entries(t *table, base uint64, level, levels, from, to int,
	fn func(Mapping)) error {
	for i := from; i < to; i++ {
		k, frame, count := Classify(t.entry(i), level, 0)
		at := addressOf(base, i, level, levels)
		switch k {
		case Leaf:
			w.leaf(at, frame, count, fn)
		case Directory:
			if err := w.directory(at, frame, level-1, levels, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaf tells of the pages of an entry that are in the image. The others are devices, or holes.
func (w *Walker) leaf(at, frame, count uint64, fn func(Mapping)) {
	for _, x := range w.s.regions {
		first := max(frame, x.GPA/pageSize)
		end := min(frame+count, (x.GPA+x.Bytes)/pageSize)
		if first >= end || w.mapped < end-first {
			continue
		}
		w.mapped -= end - first
		fn(Mapping{
			Virtual: at + (first-frame)*pageSize,
			Page:    x.Offset/pageSize + first - x.GPA/pageSize, Count: end - first,
		})
	}
}

func (w *Walker) directory(at, frame uint64, level, levels int, fn func(Mapping)) error {
	v := visit{frame, level}
	if w.seen[v] || w.tables == 0 {
		return nil
	}
	w.seen[v] = true
	w.tables--
	var t table
	ok, err := w.s.table(frame, &t)
	if !ok || err != nil {
		return err
	}
	page, _ := w.s.page(frame)
	fn(Mapping{Virtual: at, Page: page, Count: 1, Table: true})
	return w.entries(&t, at, level, levels, 0, entries, fn)
}
