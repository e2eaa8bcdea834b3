package pagetable

// Memory is guest-physical memory that contains page tables.
type Memory interface {
	// ReadTable reads the table in a frame. ok is false if there is no memory at the frame.
	ReadTable(frame uint64, t *Table) (ok bool, err error)
}

// Entry is a present entry of a table.
type Entry struct {
	Table, Raw   uint64 // frame of the table, and the entry in it
	Index, Level int
	Kind         Kind
	Frame, Count uint64 // the first frame that it points to, and the number of frames
	Virtual      uint64 // the first address that it maps
}

// Addr returns the guest-physical address of the entry itself.
func (e Entry) Addr() uint64 { return e.Table<<PageShift + uint64(e.Index)*8 }

// Upper says whether the entry is in the upper half of an address space, which is usually the kernel's.
func (e Entry) Upper() bool { return e.Virtual>>63 != 0 }

// Place is the position of a table in a walk.
type Place struct {
	Frame   uint64
	Level   int
	Virtual uint64 // the first address that it maps
}

// Walk walks tables depth first, in the order of virtual addresses. It follows all entries, so the
// caller must bound the walk by Enter: tables may point to one another in loops, and a few of them can
// map any number of pages. An error of a function ends the walk.
type Walk struct {
	Memory Memory
	Mode   Mode
	// Enter is called before a table is read. If it returns false, the table is skipped.
	Enter func(p Place) (bool, error)
	// Read, if not nil, is called with a table before its entries.
	Read func(p Place, t *Table) error
	// Entry is called with each present entry and its table. It says whether to walk the table that a
	// directory entry points to. Both arguments are only valid during the call.
	Entry func(t *Table, e *Entry) (into bool, err error)
	// Leave, if not nil, is called with a table after its entries and the tables below it.
	Leave func(p Place, t *Table) error

	// The tables that are being walked, by level.
	tables  [MaxLevels + 1]Table
	current [MaxLevels + 1]Entry
}

// Root walks the address space whose uppermost table is in a frame.
func (w *Walk) Root(frame uint64) error { return w.Table(Place{Frame: frame, Level: w.Mode.Levels}) }

// Table walks a table and the tables below it.
func (w *Walk) Table(p Place) error {
	if ok, err := w.Enter(p); !ok || err != nil {
		return err
	}
	t := &w.tables[p.Level]
	if ok, err := w.Memory.ReadTable(p.Frame, t); !ok || err != nil {
		return err
	}
	if w.Read != nil {
		if err := w.Read(p, t); err != nil {
			return err
		}
	}
	if err := w.entries(p, t); err != nil || w.Leave == nil {
		return err
	}
	return w.Leave(p, t)
}

func (w *Walk) entries(p Place, t *Table) error {
	e := &w.current[p.Level]
	e.Table, e.Level = p.Frame, p.Level
	for i := range Entries {
		if e.Raw = t.Entry(i); e.Raw&Present == 0 {
			continue
		}
		e.Index, e.Virtual = i, addressOf(p.Virtual, i, p.Level, w.Mode.Levels)
		e.Kind, e.Frame, e.Count = w.Mode.Classify(e.Raw, p.Level)
		into, err := w.Entry(t, e)
		if err == nil && into && e.Kind == Directory {
			err = w.Table(Place{Frame: e.Frame, Level: p.Level - 1, Virtual: e.Virtual})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Translate returns the leaf entry that maps a virtual address; ok is false if there is none.
func Translate(mem Memory, m Mode, root, virtual uint64) (leaf Entry, ok bool, err error) {
	var t Table
	e := Entry{Frame: root}
	for level := m.Levels; level > 0; level-- {
		if ok, err := mem.ReadTable(e.Frame, &t); !ok || err != nil {
			return Entry{}, false, err
		}
		e = Entry{Table: e.Frame, Index: slot(virtual, level), Level: level}
		e.Raw = t.Entry(e.Index)
		switch e.Kind, e.Frame, e.Count = m.Classify(e.Raw, level); e.Kind {
		case Leaf:
			e.Virtual = virtual &^ (e.Count*PageSize - 1)
			return e, true, nil
		case Directory:
		default:
			return Entry{}, false, nil
		}
	}
	return Entry{}, false, nil
}
