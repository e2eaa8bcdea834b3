package pack

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// noisePage is a page that has nothing in common with any other.
func noisePage(rng *rand.Rand) []byte {
	p := make([]byte, PageSize)
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

func plansOf(pages [][]byte, t clusterTuning) [][]uint32 {
	sketches := make([]sketch, len(pages))
	for i := range pages {
		sketches[i] = sketchOf(pages[i])
	}
	return planClusters(sketches, t)
}

// Each page is in one cluster, all but the last are full, and the same pages make the same clusters.
func TestPlanHasAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 15, 16, 17, 300} {
		var pages [][]byte
		for range n {
			pages = append(pages, testPage(rng))
		}
		plan := plansOf(pages, coldClusters)
		seen := make([]int, n)
		for i, c := range plan {
			if len(c) != coldClusters.pages && i < len(plan)-1 || !slices.IsSorted(c) {
				t.Errorf("%d pages: cluster %d of %d is %v", n, i, len(plan), c)
			}
			for _, p := range c {
				seen[p]++
			}
		}
		if slices.ContainsFunc(seen, func(n int) bool { return n != 1 }) {
			t.Errorf("%d pages: they are in clusters so often: %v", n, seen)
		}
		if again := plansOf(pages, coldClusters); !slices.EqualFunc(plan, again, slices.Equal[[]uint32]) {
			t.Errorf("%d pages: another plan", n)
		}
	}
}

// Pages that share much come together from wherever they lie, and pages that share nothing stay where they
// lie, beside one another.
func TestPlanGathers(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	base := noisePage(rng)
	var pages [][]byte
	for i := range 512 {
		p := noisePage(rng)
		if i%32 == 5 {
			copy(p[1+i:], base[:PageSize/2]) // at any place in the page
		}
		pages = append(pages, p)
	}
	alike, beside := 0, 0
	for _, c := range plansOf(pages, coldClusters) {
		if slices.ContainsFunc(c, func(p uint32) bool { return p%32 == 5 }) {
			alike++
		}
		for i := 1; i < len(c); i++ {
			if c[i]-c[i-1] <= 2 {
				beside++
			}
		}
	}
	if alike > 4 { // a cluster may be full when the first of them comes to it
		t.Errorf("16 pages that are like one another are in %d clusters", alike)
	}
	if beside < 400 {
		t.Errorf("only %d pages lie beside one another", beside)
	}
}
