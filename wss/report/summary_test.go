package report

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/thawfs/thaw/wss"
)

func TestSummary(t *testing.T) {
	s := &wss.Set{ImagePages: 640, Window: 64 * sec, Runs: []wss.Run{
		{GFN: 0, Count: 10, At: 0, Source: wss.SourceTrace, VCPU: 1},
		{GFN: 20, Count: 5, At: 0, Source: wss.SourceTrace, VCPU: 0},
		{GFN: 30, Count: 1, At: 2500 * ms, Source: wss.SourceTrace, VCPU: 1},
		{GFN: 630, Count: 4, At: 63 * sec, Source: wss.SourceTrace, VCPU: wss.NoVCPU},
		{GFN: 5, Count: 10, At: sec, Source: wss.SourceAccess, VCPU: wss.NoVCPU},
	}}
	if err := s.Validate(640); err != nil {
		t.Fatal(err)
	}
	got := Summarize(s)
	where, when := got.Where, got.When
	got.Where, got.When = nil, nil
	want := Summary{
		ImagePages: 640, Pages: 25, Bytes: 25 * 4096, Share: 25.0 / 640, Runs: 5,
		RunP50: 5, RunP90: 10, RunMax: 10,
		Sources: []SourceSummary{
			{wss.SourceAccess, 10, 1, []int{}}, {wss.SourceTrace, 20, 4, []int{0, 1}},
		},
		// 30 touches in order of time: 15 at 0 s, 10 at 1 s, 1 at 2.5 s, 4 at 63 s.
		T50: 0, T90: 63, T100: 63,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	wantWhere := make([]float64, 64)
	wantWhere[0], wantWhere[1], wantWhere[2], wantWhere[3], wantWhere[63] = 1, 0.5, 0.5, 0.1, 0.4
	if d := cmp.Diff(wantWhere, where, cmpopts.EquateApprox(0, 1e-9)); d != "" {
		t.Error("where:", d)
	}
	wantWhen := make([]float64, 64)
	wantWhen[0], wantWhen[1], wantWhen[2], wantWhen[63] = 15./30, 10./30, 1./30, 4./30
	if d := cmp.Diff(wantWhen, when, cmpopts.EquateApprox(0, 1e-9)); d != "" {
		t.Error("when:", d)
	}
}

func TestSummaryEdges(t *testing.T) {
	const all = wss.MaxImagePages
	set := func(pages uint64, runs ...wss.Run) *wss.Set {
		for i := range runs {
			runs[i].Source, runs[i].VCPU = "x", wss.NoVCPU
		}
		return &wss.Set{ImagePages: pages, Runs: runs}
	}
	for _, s := range []*wss.Set{
		set(1),
		set(3, wss.Run{Count: 3}),
		set(all, wss.Run{Count: all}),
		set(all, wss.Run{GFN: all - 1, Count: 1}),
		set(100, wss.Run{GFN: 1, Count: 1, At: wss.MaxTime}),
	} {
		if err := s.Validate(s.ImagePages); err != nil {
			t.Fatal(err)
		}
		m := Summarize(s)
		sum := 0.0
		for _, f := range m.When {
			sum += f
		}
		if len(s.Runs) > 0 && math.Abs(sum-1) > 1e-9 {
			t.Errorf("%v: the times add up to %v", s.Runs, sum)
		}
		for i, f := range m.Where {
			if f < 0 || f > 1+1e-9 {
				t.Errorf("%v: bin %d is %v", s.Runs, i, f)
			}
		}
	}
}
