package index

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// formerByLooking is ancestry.formerOf in the plainest way.
func formerByLooking(e *catalogEntry, earlier []*catalogEntry) (former *catalogEntry) {
	for _, x := range slices.Backward(earlier) {
		if x.MemoryBytes != e.MemoryBytes {
			continue
		}
		if x.Name == e.Parent {
			return x
		}
		has := func(n uint64) bool { return slices.Contains(e.packs, n) }
		if former == nil && slices.ContainsFunc(x.packs, has) {
			former = x
		}
	}
	return former
}

func TestFormerOf(t *testing.T) {
	r := newRand(t)
	for range 200 {
		a, earlier := newAncestry(), []*catalogEntry(nil)
		for i := range 1 + r.IntN(30) {
			e := &catalogEntry{Checkpoint: Checkpoint{
				Name: fmt.Sprint(i), MemoryBytes: int64(1 + r.IntN(2)),
				Created: time.Unix(int64(r.IntN(10)), 0),
			}}
			if r.IntN(2) == 0 {
				e.Parent = fmt.Sprint(r.IntN(30))
			}
			for range r.IntN(4) {
				e.packs = append(e.packs, r.Uint64N(20))
			}
			want := formerByLooking(e, earlier)
			if got := a.formerOf(e); got != want {
				t.Fatalf("%+v: %+v, want %+v", e, got, want)
			}
			a.add(e)
			earlier = append(earlier, e)
		}
	}
}
