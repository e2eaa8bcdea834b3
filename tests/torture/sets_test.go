package torture

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/thawfs/thaw/index"
)

// drawSet draws a working set of an image of n pages: no page twice. Nil: none.
func drawSet(r *rand.Rand, n int) (runs []index.Run, shape string) {
	order := func(gfns []int) {
		for _, g := range gfns {
			runs = append(runs, index.Run{GFN: uint64(g), Count: 1})
		}
	}
	switch r.IntN(11) {
	case 0, 1:
		return nil, "none"
	case 2, 8, 9, 10:
		order(r.Perm(n))
		return runs, "shuffled"
	case 3:
		return []index.Run{{GFN: uint64(r.IntN(n)), Count: 1}}, "single"
	case 4:
		return []index.Run{{GFN: 0, Count: uint64(n)}}, "whole"
	case 5:
		first := r.IntN(n)
		return []index.Run{{GFN: uint64(first), Count: uint64(1 + r.IntN(n-first))}}, "dense"
	case 6:
		order(r.Perm(n)[:1+r.IntN(n)])
		return runs, "scattered"
	}
	var at int
	for at < n && len(runs) < 30 {
		count := 1 + r.IntN(min(50, n-at))
		runs = append(runs, index.Run{GFN: uint64(at), Count: uint64(count)})
		at += count + 1 + r.IntN(100)
	}
	r.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	return runs, "runs"
}

// setText is the file of a working set; nothing for none.
func setText(runs []index.Run, n int) []byte {
	if len(runs) == 0 {
		return nil
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "thaw-working-set 1\npages %d\n\n", n)
	for i, r := range runs {
		fmt.Fprintf(&b, "%d %d %d trace\n", r.GFN, r.Count, i)
	}
	return b.Bytes()
}

// gfns returns the pages of a set one by one.
func gfns(runs []index.Run) (out []uint64) {
	for _, r := range runs {
		for i := range r.Count {
			out = append(out, r.GFN+i)
		}
	}
	return out
}
