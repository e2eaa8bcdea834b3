package locality

import "testing"

func TestReplay(t *testing.T) {
	touches := []uint64{1, 2, 17, 1, 40, 3, 18}
	for name, c := range map[string]struct {
		with func(uint64) []uint64
		want Figures
	}{
		"single":   {Single, Figures{Touched: 6, Requests: 6}},
		"physical": {Physical, Figures{Touched: 6, Requests: 3, Brought: 45, Used: 3}},
		"ahead": {func(gfn uint64) []uint64 { return []uint64{gfn + 1} },
			Figures{Touched: 6, Requests: 4, Brought: 4, Used: 2}},
	} {
		if got := Replay(touches, c.with); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
