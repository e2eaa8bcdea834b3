package pagetable

import (
	"errors"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// TestWalkOrder: a table is entered, read, gone through and left, and what is below it in between.
func TestWalkOrder(t *testing.T) {
	m := newRAM(t, 64)
	r := m.root(4) // frame 1; its tables are 4, 7, 10
	m.mapPage(r, 0x7000, 50, 1, 0)
	m.mapPage(r, 0x20_0000, 0, 2, 0)
	type step struct {
		what         string
		frame        uint64
		level, index int
	}
	var got []step
	place := func(what string) func(Place, *Table) error {
		return func(p Place, t *Table) error {
			got = append(got, step{what, p.Frame, p.Level, 0})
			return nil
		}
	}
	w := Walk{Memory: m.space(), Mode: Mode{Levels: 4}, Read: place("read"), Leave: place("leave"),
		Enter: func(p Place) (bool, error) { return true, place("enter")(p, nil) },
		Entry: func(_ *Table, e *Entry) (bool, error) {
			got = append(got, step{"entry", e.Table, e.Level, e.Index})
			return true, nil
		}}
	if err := w.Root(1); err != nil {
		t.Fatal(err)
	}
	want := []step{
		{"enter", 1, 4, 0}, {"read", 1, 4, 0}, {"entry", 1, 4, 0},
		{"enter", 4, 3, 0}, {"read", 4, 3, 0}, {"entry", 4, 3, 0},
		{"enter", 7, 2, 0}, {"read", 7, 2, 0}, {"entry", 7, 2, 0},
		{"enter", 10, 1, 0}, {"read", 10, 1, 0}, {"entry", 10, 1, 7}, {"leave", 10, 1, 0},
		{"entry", 7, 2, 1}, {"leave", 7, 2, 0}, {"leave", 4, 3, 0}, {"leave", 1, 4, 0},
	}
	if d := gocmp.Diff(want, got, gocmp.AllowUnexported(step{})); d != "" {
		t.Error(d)
	}
}

// TestWalkEnds: what each function says ends the walk, or keeps it out of a table.
func TestWalkEnds(t *testing.T) {
	m := newRAM(t, 64)
	m.mapPage(m.root(5), 0x7000, 50, 1, 0)
	end := errors.New("the end")
	for name, change := range map[string]func(*Walk){
		"enter": func(w *Walk) { w.Enter = func(Place) (bool, error) { return true, end } },
		"read":  func(w *Walk) { w.Read = func(Place, *Table) error { return end } },
		"entry": func(w *Walk) { w.Entry = func(*Table, *Entry) (bool, error) { return true, end } },
		"leave": func(w *Walk) { w.Leave = func(Place, *Table) error { return end } },
	} {
		w := Walk{Memory: m.space(), Mode: Mode{Levels: 5},
			Enter: func(Place) (bool, error) { return true, nil },
			Entry: func(*Table, *Entry) (bool, error) { return true, nil }}
		change(&w)
		if err := w.Root(1); !errors.Is(err, end) {
			t.Errorf("%s: %v", name, err)
		}
	}
	entered := 0
	w := Walk{Memory: m.space(), Mode: Mode{Levels: 5},
		Enter: func(Place) (bool, error) { entered++; return entered < 3, nil },
		Entry: func(*Table, *Entry) (bool, error) { return true, nil }}
	if err := w.Root(1); err != nil || entered != 3 {
		t.Errorf("%d tables entered: %v", entered, err)
	}
}

func TestTranslate(t *testing.T) {
	for _, levels := range []int{4, 5} {
		m := newRAM(t, 2048)
		r := m.root(levels)
		top := ^uint64(0xfff)
		m.mapPage(r, 0x7000, 1000, 1, NX|Accessed)
		m.mapPage(r, 0x20_0000, 512, 2, 0)
		m.mapPage(r, 1<<30, 0, 3, 0)
		m.mapPage(r, top, 8, 1, 0)
		m.set(r.GPA/PageSize, 1, 5000<<PageShift|Present)     // a table that is not in memory
		m.set(r.GPA/PageSize, 2, 10<<PageShift|Present|Large) // no such thing at this level
		mode, root := Mode{Levels: levels}, r.GPA/PageSize
		for _, c := range []struct {
			virtual, frame, count, start uint64
			ok                           bool
		}{
			{0x7abc, 1000, 1, 0x7000, true}, {0x8000, 0, 0, 0, false},
			{0x23_4567, 512, 512, 0x20_0000, true},
			{1<<30 + 0x1234567, 0, 1 << 18, 1 << 30, true},
			{top + 5, 8, 1, top, true},
			{1 << (PageShift + 9*(levels-1)), 0, 0, 0, false},
			{2 << (PageShift + 9*(levels-1)), 0, 0, 0, false},
		} {
			e, ok, err := Translate(m.space(), mode, root, c.virtual)
			if ok != c.ok || err != nil || e.Frame != c.frame || e.Count != c.count ||
				e.Virtual != c.start {
				t.Errorf("%d levels, %#x: %+v %v %v", levels, c.virtual, e, ok, err)
			}
			if ok && m.get(e.Table, e.Index) != e.Raw || ok && e.Addr() != e.Table*PageSize+uint64(e.Index)*8 {
				t.Errorf("%#x: the entry is not at %#x", c.virtual, e.Addr())
			}
		}
		if _, ok, err := Translate(m.space(), Mode{levels, NX}, root, 0x7000); ok || err != nil {
			t.Errorf("an entry with a reserved bit was used: %v", err)
		}
	}
}

func TestModeOf(t *testing.T) {
	const pg, lma, nxe, la57 = 1 << 31, 1 << 10, 1 << 11, 1 << 12
	for _, c := range []struct {
		cr0, cr3, cr4, efer uint64
		want                Mode
		root                uint64
		ok                  bool
	}{
		{0, 0x1000, 0, lma, Mode{}, 0, false},
		{pg, 0x1000, 0, 0, Mode{}, 0, false},
		{pg, 0x5abc, 0, lma, Mode{4, NX}, 5, true},
		{pg, 1<<63 | 3<<61 | 0x5000, la57, lma | nxe, Mode{5, 0}, 5, true},
	} {
		m, root, ok := ModeOf(c.cr0, c.cr3, c.cr4, c.efer)
		if m != c.want || root != c.root || ok != c.ok {
			t.Errorf("%+v: %v %d %v", c, m, root, ok)
		}
	}
}
