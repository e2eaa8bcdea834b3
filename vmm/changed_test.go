package vmm

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func changedSection(t testing.TB, c *changed) section {
	t.Helper()
	s, err := c.section()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestChangedSection(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for i := range 100 {
		want := &changed{size: 1000 * pageSize, Parent: "/some/where", ParentID: identity{byte(i), 1},
			runs: []PageRun{{r.Uint64N(10), 1 + r.Uint64N(9)}, {20, 1}, {30 + r.Uint64N(900), 1 + r.Uint64N(60)}}}
		s := changedSection(t, want)
		other := section{tag: "OTHER", data: []byte{1}}
		got, rest, err := splitChanged([]section{other, s})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(changed{})); d != "" {
			t.Fatal(d)
		}
		if len(rest) != 1 || rest[0].tag != "OTHER" || !s.required {
			t.Fatalf("others: %+v, required %v", rest, s.required)
		}
		// It is no part of what names a checkpoint.
		if identify([]section{other, s}) != identify(rest) || identify(rest) == identify(nil) {
			t.Fatal("identity")
		}
	}
}

func TestSenselessChangedSection(t *testing.T) {
	good := changed{size: 10 * pageSize, Parent: "/p", runs: []PageRun{{0, 2}, {4, 6}}}
	b := changedSection(t, &good).data
	relative, large, odd := good, good, good
	relative.Parent = "p"
	large.size = 1 << 60
	odd.size++
	for what, data := range map[string][]byte{
		"empty":           nil,
		"cut off":         b[:changedHead+1],
		"half a run":      b[:len(b)-1],
		"run too long":    append(b[:len(b)-1:len(b)-1], 7),
		"run of nothing":  append(b[:len(b)-1:len(b)-1], 0),
		"adjacent runs":   append(b[:len(b)-2:len(b)-2], 0, 1),
		"far away":        append(b[:len(b)-2:len(b)-2], 200, 200, 200, 200, 200, 200, 1, 1),
		"relative parent": changedSection(t, &relative).data,
		"size":            changedSection(t, &large).data,
		"odd size":        changedSection(t, &odd).data,
	} {
		_, err := decodeChanged(data)
		var state *StateError
		if !errors.As(err, &state) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := changedSection(t, &good)
	if _, _, err := splitChanged([]section{s, s}); err == nil {
		t.Error("two sections were taken")
	}
	good.Parent = "/" + strings.Repeat("x", 1<<16)
	if _, err := good.section(); err == nil {
		t.Error("a path of 64 KiB was written")
	}
}

func FuzzChanged(f *testing.F) {
	f.Add(changedSection(f, &changed{size: 10 * pageSize, Parent: "/p", runs: []PageRun{{1, 2}}}).data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeChanged(b)
		if err != nil {
			return
		}
		at := uint64(0)
		for _, r := range c.runs {
			if r.First < at || r.Count == 0 || r.End() > c.size/pageSize {
				t.Fatalf("run %+v after page %d", r, at)
			}
			at = r.End()
		}
		again, err := decodeChanged(changedSection(t, c).data)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, again, cmp.AllowUnexported(changed{})); d != "" {
			t.Fatal(d)
		}
	})
}

// The section has room for as many runs as are allowed, whatever the numbers are.
func TestMostRuns(t *testing.T) {
	most := make([]PageRun, maxRuns)
	for i := range most {
		most[i] = PageRun{uint64(i) * 700, 600}
	}
	c := changed{size: MaxMemory, Parent: "/" + strings.Repeat("x", 1<<16-2), runs: most}
	if n := len(changedSection(t, &c).data); n > maxSectionSize {
		t.Errorf("%d runs make a section of %d bytes", maxRuns, n)
	}
}
