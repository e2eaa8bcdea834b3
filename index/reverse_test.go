package index

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// The pages of a pack come in the order of their slots, and those of one slot by number, however
// dense its slots are.
func TestSortBySpot(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, c := range []struct{ pages, slots int }{
		{0, 1}, {1, 1 << 24}, {1000, 1}, {1000, 500}, {1000, 1000}, {1000, 3999}, {1000, 1 << 24},
	} {
		pages := make([]spotGFN, c.pages)
		for i := range pages {
			pages[i] = spotGFN(rng.IntN(c.slots))<<32 | spotGFN(3*i)
		}
		want := slices.Sorted(slices.Values(pages))
		if got := sortBySpot(pages); !slices.Equal(got, want) {
			t.Errorf("%d pages in %d slots are not in order", c.pages, c.slots)
		}
	}
}
