package scan

import (
	"errors"
	"maps"
	"testing"
	"time"
)

// unseenMachine is a machine whose registers nobody can read.
type unseenMachine struct{ *machine }

func (m unseenMachine) CPUs() ([]CPU, error) {
	m.t.Error("the registers are asked for")
	return nil, errors.New("they cannot be read")
}

func unseenTables(t *testing.T, m *machine) *Tables {
	t.Helper()
	src, err := NewTables(unseenMachine{m}, TableOptions{Clock: m, Unseen: true,
		TestTime: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// Without registers the sweeps of any guest that maps its own tables find what was touched, and change
// nothing but page tables: the machine checks each write.
func TestUnseenAgainstLog(t *testing.T) {
	for _, c := range []struct {
		name string
		o    osOptions
	}{
		{"one process", osOptions{levels: 4, processes: 1, userPages: 300}},
		{"processes", osOptions{levels: 4, processes: 8, userPages: 100, cpus: 2}},
		{"5 levels", osOptions{levels: 5, processes: 5, userPages: 100, cpus: 2}},
		{"isolated", osOptions{levels: 4, isolated: true, processes: 6, userPages: 80, cpus: 2}},
		{"processes that come and go", osOptions{levels: 4, processes: 6, userPages: 50, cpus: 2,
			changes: true}},
		{"isolated ones that come and go", osOptions{levels: 4, isolated: true, processes: 5,
			userPages: 40, cpus: 2, changes: true}},
		{"large pages", osOptions{levels: 4, large: true, processes: 3, userPages: 60, cpus: 2}},
	} {
		c.o.direct = true
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(8) {
				m := newMachine(t, seed, low, high)
				if c.o.large {
					m = newMachine(t, seed, low, higher)
				}
				k := newOS(m, c.o)
				src := unseenTables(t, m)
				m.Sleep(t.Context(), 20*time.Millisecond)
				for i := range 15 {
					alive := map[uint64]bool{}
					for gfn, s := range src.spaces {
						alive[gfn] = s.alive && !s.old
					}
					s, err := src.Sweep(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if i == 0 {
						maps.Copy(m.early, m.cut())
					} else {
						m.sameAsLog(s, func(root uint64) bool { return alive[root] })
					}
					m.Sleep(t.Context(), time.Duration(4+m.rng.IntN(8))*time.Millisecond)
				}
				want := len(k.procs)
				if c.o.isolated {
					want *= 2
				}
				n := src.Counts()
				if n.Malformed > 0 || n.Truncated > 0 || !c.o.changes && (n.Refused > 0 || n.Spaces < want) {
					t.Errorf("%d processes: %+v", len(k.procs), n)
				}
			}
		})
	}
}
