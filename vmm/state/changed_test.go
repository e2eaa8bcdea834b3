package state

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/vmm/ram"
)

func changedSection(t testing.TB, c *Changed) section {
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
		want := &Changed{Size: 1000 * pageSize, Parent: "/some/where", ParentID: ID{byte(i), 1},
			Runs: []ram.PageRun{{First: r.Uint64N(10), Count: 1 + r.Uint64N(9)}, {First: 20, Count: 1},
				{First: 30 + r.Uint64N(900), Count: 1 + r.Uint64N(60)}}}
		s := changedSection(t, want)
		other := section{tag: "OTHER", data: []byte{1}}
		got, rest, err := splitChanged([]section{other, s})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(Changed{})); d != "" {
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
	good := Changed{Size: 10 * pageSize, Parent: "/p",
		Runs: []ram.PageRun{{First: 0, Count: 2}, {First: 4, Count: 6}}}
	b := changedSection(t, &good).data
	relative, large, odd := good, good, good
	relative.Parent = "p"
	large.Size = 1 << 60
	odd.Size++
	for what, data := range map[string][]byte{
		"empty":           nil,
		"cut off":         b[:binary.Size(changedHead{})+1],
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
		var state *FileError
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
	f.Add(changedSection(f, &Changed{Size: 10 * pageSize, Parent: "/p",
		Runs: []ram.PageRun{{First: 1, Count: 2}}}).data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeChanged(b)
		if err != nil {
			return
		}
		at := uint64(0)
		for _, r := range c.Runs {
			if r.First < at || r.Count == 0 || r.End() > c.Size/pageSize {
				t.Fatalf("run %+v after page %d", r, at)
			}
			at = r.End()
		}
		again, err := decodeChanged(changedSection(t, c).data)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, again, cmp.AllowUnexported(Changed{})); d != "" {
			t.Fatal(d)
		}
	})
}

// The section has room for as many runs as are allowed, whatever the numbers are.
func TestMostRuns(t *testing.T) {
	most := make([]ram.PageRun, MaxRuns)
	for i := range most {
		most[i] = ram.PageRun{First: uint64(i) * 700, Count: 600}
	}
	c := Changed{Size: ram.MaxMemory, Parent: "/" + strings.Repeat("x", 1<<16-2), Runs: most}
	if n := len(changedSection(t, &c).data); n > maxSectionSize {
		t.Errorf("%d runs make a section of %d bytes", MaxRuns, n)
	}
}
