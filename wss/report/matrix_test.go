package report

import (
	"bytes"
	"testing"

	"github.com/thawfs/thaw/wss"
)

func TestMatrix(t *testing.T) {
	s := &wss.Set{ImagePages: 100, Runs: []wss.Run{
		{GFN: 0, Count: 10, Source: wss.SourceAccess, VCPU: wss.NoVCPU},
		{GFN: 5, Count: 15, Source: wss.SourceTrace},
	}}
	var out bytes.Buffer
	if err := SourceMatrix(s).WriteText(&out); err != nil {
		t.Fatal(err)
	}
	want := `         access    trace  pages
access  100.0 %   25.0 %     10
trace    25.0 %  100.0 %     15
`
	if out.String() != want {
		t.Errorf("\n%s", out.String())
	}
	sets := []*wss.Set{s, s.Only(wss.SourceTrace), {ImagePages: 100}}
	m := NewMatrix([]string{"a", "b", "none"}, sets)
	for i, a := range sets {
		for j, b := range sets {
			if got, want := m.Overlaps[i][j], a.Overlap(b); got != want {
				t.Errorf("%d, %d: %v, want %v", i, j, got, want)
			}
		}
	}
	if got := m.Rows()[3][3]; got != "n/a" {
		t.Errorf("two empty sets have %s in common", got)
	}
}
