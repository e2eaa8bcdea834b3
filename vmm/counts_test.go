package vmm

import (
	"testing"

	"github.com/thawfs/thaw/vmm/boot"
	"github.com/thawfs/thaw/wss"
)

// A restored guest that reads known pages touches those pages, the pages with their versions, its
// program and its page tables, and nothing else.
func TestCountsOfARestore(t *testing.T) {
	const units = 3000
	m := newTestMachine(t, spec("random:30", "write", "0", "units", "200000000"), testMemory)
	runUntil(t, m, units)
	dir := checkpoint(t, m)
	l, err := load(dir, Config{Log: testLog(t), Count: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !l.exact || l.prefetched == nil {
		t.Skipf("needs exact tracking: %v", l.notes)
	}
	before, _, err := l.mem.Scan()
	if err != nil {
		t.Fatal(err)
	}
	if n := before.Count(); n != 0 {
		t.Errorf("%d pages were touched before the first instruction", n)
	}
	done := l.ports.snapshot().Done
	ram := boot.GuestRAM(l.facts.Regions)
	boot, err := l.program.Boot(ram)
	if err != nil {
		t.Fatal(err)
	}
	runUntil(t, l.Machine, done+4*boot.Set) // some rounds: every page of the set
	if err := l.Pause(); err != nil {
		t.Fatal(err)
	}
	touched, dirty, err := l.mem.Scan()
	if err != nil {
		t.Fatal(err)
	}
	pages := ram.First + boot.Roots + boot.Tables
	var set, tables uint64
	for first, n := range touched.Runs() {
		for gfn := first; gfn < first+n; gfn++ {
			switch {
			case gfn >= pages:
				set++
			default:
				tables++
			}
		}
	}
	if set != boot.Set {
		t.Errorf("%d checked pages touched, the set has %d", set, boot.Set)
	}
	// Boot page, program, stack, task state, 16 page tables at most, root and table pages.
	most := 20 + tableBytes(l.facts.Regions)/pageSize + boot.Roots + boot.Tables
	if tables > most {
		t.Errorf("%d other pages touched, there are %d", tables, most)
	}
	// It writes nothing but its counters and, through the CPU, access bits.
	if n := dirty.AndNot(touched).Count(); n != 0 {
		t.Errorf("%d pages are dirty and not touched", n)
	}
	if c := wss.Count(l.prefetched, touched, 0); c.Skipped+c.Lazy != touched.Count() {
		t.Errorf("counts %+v of %d touched", c, touched.Count())
	}
	t.Logf("%d touched, %d dirty, of a set of %d", touched.Count(), dirty.Count(), boot.Set)
}
