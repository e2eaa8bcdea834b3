package wss

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSummary(t *testing.T) {
	s := &Set{ImagePages: 640, Window: 64 * sec, Runs: []Run{
		{0, 10, 0, SourceTrace, 1},
		{20, 5, 0, SourceTrace, 0},
		{30, 1, 2500 * ms, SourceTrace, 1},
		{630, 4, 63 * sec, SourceTrace, NoVCPU},
		{5, 10, sec, SourceAccess, NoVCPU},
	}}
	if err := s.Validate(640); err != nil {
		t.Fatal(err)
	}
	got := s.Summary()
	where, when := got.Where, got.When
	got.Where, got.When = nil, nil
	want := Summary{
		ImagePages: 640, Pages: 25, Bytes: 25 * 4096, Share: 25.0 / 640, Runs: 5,
		RunP50: 5, RunP90: 10, RunMax: 10,
		Sources: []SourceSummary{
			{SourceAccess, 10, 1, []int{}}, {SourceTrace, 20, 4, []int{0, 1}},
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
	for _, s := range []*Set{
		{ImagePages: 1},
		{ImagePages: 3, Runs: []Run{run(0, 3)}},
		{ImagePages: MaxImagePages, Runs: []Run{run(0, MaxImagePages)}},
		{ImagePages: MaxImagePages, Runs: []Run{run(MaxImagePages-1, 1)}},
		{ImagePages: 100, Runs: []Run{{GFN: 1, Count: 1, At: MaxTime, Source: "x", VCPU: NoVCPU}}},
	} {
		if err := s.Validate(s.ImagePages); err != nil {
			t.Fatal(err)
		}
		m := s.Summary()
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
