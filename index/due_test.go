package index

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/pack"
)

// touchTimes are the first touches of pages; those that are missing have none.
type touchTimes map[uint64]time.Duration

func randomTimes(r *rand.Rand, set []Run) touchTimes {
	times := touchTimes{}
	eachPage(set, func(gfn uint64) {
		times[gfn] = time.Duration(r.IntN(1_000_000)) * time.Microsecond
	})
	return times
}

func (t touchTimes) wanted(gfns []uint64) (time.Duration, bool) {
	at := t[gfns[0]]
	for _, gfn := range gfns {
		at = min(at, t[gfn])
	}
	return at, true
}

// sameDues compares the times of an image's feed with the model. A piece that has pages of several parts of
// the set, as on a medium on which the order is another one, may be wanted earlier than they are.
func sameDues(t *testing.T, m *Image, times touchTimes, exact bool) {
	t.Helper()
	feed := m.WorkingSetFeed().(TimedFeed)
	dues, ok := feed.Due()
	if !ok || len(dues) != feed.Len() {
		t.Fatalf("%d times of %d pieces, known: %v", len(dues), feed.Len(), ok)
	}
	part := touchTimes{} // of each page that of its part
	note := func(gfns []uint64) error {
		at, _ := times.wanted(gfns)
		for _, gfn := range gfns {
			part[gfn] = at
		}
		return nil
	}
	stored := segmentPages(m.WorkingSet(), m.Pages())
	_ = frameGFNs(m.WorkingSet(), stored, note)
	_ = frameGFNs(tail(m.WorkingSet(), stored), maxPages, note)
	for i, d := range dues {
		gfns := feed.GFNs(i, nil)
		want, _ := part.wanted(gfns)
		first, _ := times.wanted(gfns)
		if d.Pages != uint64(len(gfns)) || d.At != want || d.At > first || exact && d.At != first {
			t.Fatalf("piece %d of %d: %+v, want %v for %d pages, the first touch is at %v",
				i, len(dues), d, want, len(gfns), first)
		}
	}
}

// A store that was told the times of a set knows them of every piece, also of those that are not in the
// segment, of which it is without, and which come in another order.
func TestDue(t *testing.T) {
	r := newRand(t)
	const pages = 20000 // of which a segment has 16384
	dir := filepath.Join(t.TempDir(), "store")
	s := openTest(t, dir, nil)
	content := make(testImage, pages)
	for i := range 100 {
		content[i*200] = uint64(i + 1)
	}
	src := writeSource(t, content.bytes(), nil)
	var set []Run
	for _, gfn := range r.Perm(pages)[:16384+r.IntN(pages-16384)] {
		set = append(set, Run{uint64(gfn), 1})
	}
	times := randomTimes(r, set)
	_, _, err := s.Import(t.Context(), src, ImportOptions{Name: "a", WorkingSet: set, Wanted: times.wanted})
	if err != nil {
		t.Fatal(err)
	}
	check := func(exact bool) {
		t.Helper()
		m := openImage(t, s, "a")
		defer m.Close()
		sameDues(t, m, times, exact)
	}
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, dir, nil)
	}
	check(true)
	reopen()
	check(true)
	set = set[:1+r.IntN(len(set))]
	times = randomTimes(r, set)
	if _, err := s.SetTimedWorkingSet(t.Context(), "a", []byte("text\n"), set, times.wanted); err != nil {
		t.Fatal(err)
	}
	reopen()
	check(true)
	segment := filepath.Join(dir, filepath.FromSlash(pack.Name(s.cat.m["a"].segment, 0)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = onDisk(t, dir)
	check(false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(segment); err != nil {
		t.Fatal(err)
	}
	s, _ = onDisk(t, dir)
	check(false)
	reopen()
	check(false)
	if rep := repairIt(t, s); !rep.OK() || len(rep.Repaired) != 1 {
		t.Fatalf("%+v", rep)
	}
	check(true)
	checkClean(t, s, true)
}

// What a store was not told it does not say: the text may know. What nobody knows it says.
func TestDueUntold(t *testing.T) {
	s := openTest(t, t.TempDir()+"/s", nil)
	defer s.Close()
	set := []Run{{5, 300}}
	mustImport(t, s, "a", writeSource(t, uniqueImage(600).bytes(), nil), set)
	due := func() ([]Due, bool) {
		t.Helper()
		m := openImage(t, s, "a")
		defer m.Close()
		return m.WorkingSetFeed().(TimedFeed).Due()
	}
	if dues, ok := due(); ok {
		t.Errorf("untold: %v", dues)
	}
	unknown := func([]uint64) (time.Duration, bool) { return 0, false }
	if _, err := s.SetTimedWorkingSet(t.Context(), "a", []byte("x"), set, unknown); err != nil {
		t.Fatal(err)
	}
	if dues, ok := due(); !ok || len(dues) > 0 {
		t.Errorf("known to be unknown: %v, %v", dues, ok)
	}
	if _, err := s.SetWorkingSet(t.Context(), "a", []byte("x"), set); err != nil {
		t.Fatal(err)
	}
	if dues, ok := due(); ok {
		t.Errorf("another set, untold: %v", dues)
	}
}

// A root whose times are malformed, or of a later version, is as good as one without.
func TestDueMalformed(t *testing.T) {
	set := []Run{{5, 300}}
	sound := appendDues(nil, []Due{{256, time.Second}, {44, time.Millisecond}})
	for name, code := range map[string][]byte{
		"empty": nil, "later": {dueVersion + 1, 7, 7}, "cut": sound[:len(sound)-1], "long": append(sound, 0),
		"fewer pages": appendDues(nil, []Due{{256, 0}}), "more pages": appendDues(nil, []Due{{301, 0}}),
		"no pages": appendDues(nil, []Due{{0, 0}, {300, 0}}), "many": {dueVersion, 255, 255, 255, 255, 255, 15},
		"before": {dueVersion, 1, 0xac, 2, 1},
	} {
		r := &root{setRuns: set}
		if err := r.take(0, kindDues, code); err != nil || r.dues != nil {
			t.Errorf("%s: %v, %v", name, r.dues, err)
		}
	}
	r := &root{setRuns: set}
	if err := r.take(0, kindDues, sound); err != nil || len(r.dues) != 2 {
		t.Errorf("%v, %v", r.dues, err)
	}
}

// Damage of the times costs the times only, a check names it, and a repair makes the root sound.
func TestDueDamaged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := openTest(t, dir, nil)
	set, content := []Run{{5, 300}}, uniqueImage(600).bytes()
	times := randomTimes(newRand(t), set)
	_, _, err := s.Import(t.Context(), writeSource(t, content, nil),
		ImportOptions{Name: "a", WorkingSet: set, Wanted: times.wanted})
	if err != nil {
		t.Fatal(err)
	}
	m := openImage(t, s, "a")
	code := appendDues(nil, m.root.dues)
	m.Close()
	s.Close()
	root := filepath.Join(dir, filepath.FromSlash(rootName("a", 0)))
	b, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, code)
	if at < 0 {
		t.Fatal("the times are not in the root")
	}
	b[at+len(code)-1] ^= 1
	if err := os.WriteFile(root, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, nil)
	defer s.Close()
	m = openImage(t, s, "a")
	sameImage(t, m, content)
	sameWorkingSet(t, m, content, set)
	if dues, ok := m.WorkingSetFeed().(TimedFeed).Due(); ok {
		t.Errorf("damaged times: %v", dues)
	}
	m.Close()
	rep, err := s.Check(t.Context(), CheckOptions{})
	if err != nil || len(rep.Problems) != 1 || len(rep.Lost) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	repairIt(t, s)
	checkClean(t, s, true)
}

func FuzzDues(f *testing.F) {
	f.Add(appendDues(nil, []Due{{256, time.Second}, {44, time.Millisecond}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		dues, err := parseDues(b, 300)
		if err != nil || dues == nil {
			return
		}
		if again, err := parseDues(appendDues(nil, dues), 300); err != nil || !slices.Equal(dues, again) {
			t.Fatalf("%v became %v, %v", dues, again, err)
		}
	})
}
