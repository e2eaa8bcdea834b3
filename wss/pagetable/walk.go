package pagetable

// Memory is guest-physical memory that has page tables.
type Memory interface {
	// ReadTable reads what is in a frame. False: there is no memory.
	ReadTable(frame uint64, t *Table) (ok bool, err error)
}

// Entry is an entry of a table that is present.
type Entry struct {
	Table, Raw   uint64 // frame of the table, and the entry in it
	Index, Level int
	Kind         Kind
	Frame, Count uint64 // that it is for
	Virtual      uint64 // the first address that it maps
}

// Addr is the guest-physical address of the entry itself.
func (e Entry) Addr() uint64 { return e.Table<<PageShift + uint64(e.Index)*8 }

// Upper says whether the entry is for the upper half of an address space: the kernel's, by custom.
func (e Entry) Upper() bool { return e.Virtual>>63 != 0 }

// Place is where a walk comes upon a table.
type Place struct {
	Frame   uint64
	Level   int
	Virtual uint64 // the first address that it maps
}

// Walk goes through tables depth first, in the order of their virtual addresses. It goes wherever
// the entries lead, so the caller must bound the walk by Enter: tables may point to one another in
// circles, and a few of them can map any number of pages. An error of a function ends the walk.
type Walk struct {
	Memory Memory
	Mode   Mode
	// Enter is asked before a table is read. False: it is left out.
	Enter func(p Place) (bool, error)
	// Read is given a table that was read, before its entries. Nil: nothing is done.
	Read func(p Place, t *Table) error
	// Entry is given each entry that is present, with its table, and says whether a directory is gone
	// into. Both change after the call.
	Entry func(t *Table, e *Entry) (into bool, err error)
	// Leave is given a table after its entries, and what is below them. Nil: nothing is done.
	Leave func(p Place, t *Table) error

	// What is being walked, by level.
	tables  [MaxLevels + 1]Table
	current [MaxLevels + 1]Entry
}

// Root walks the address space whose uppermost table is in a frame.
func (w *Walk) Root(frame uint64) error { return w.Table(Place{Frame: frame, Level: w.Mode.Levels}) }

// Table walks a table, and what is below it.
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

// Translate returns the leaf that maps a virtual address. False: none does.
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
