package index

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
)

// scattered is an image of random pages, in a working set whose order has nothing to do with theirs:
// its leaves are long, and those of a later image are differences from them.
func scattered(r *rand.Rand, pages int) (testImage, []Run) {
	m := make(testImage, pages)
	hot := make([]Run, pages)
	for i := range m {
		m[i] = 1000 + r.Uint64()>>8
		hot[i] = Run{GFN: uint64(i), Count: 1}
	}
	r.Shuffle(pages, func(i, j int) { hot[i], hot[j] = hot[j], hot[i] })
	return m, hot
}

// changed gives an image in which a share of the pages are other ones, wherever they lie.
func (m testImage) changed(r *rand.Rand, share float64) testImage {
	out := append(testImage(nil), m...)
	for i := range out {
		if r.Float64() < share {
			out[i] = 1000 + r.Uint64()>>8
		}
	}
	return out
}

// A collection keeps what any checkpoint has, whichever of them it looks at first.
func TestGCKeepsWhatIsShared(t *testing.T) {
	for _, names := range [][2]string{{"z", "a"}, {"a", "z"}} {
		for _, share := range []float64{0.02, 0.1, 0.3, 0.7} {
			t.Run(fmt.Sprintf("%s from %s, %v", names[1], names[0], share), func(t *testing.T) {
				r := rand.New(rand.NewPCG(81, uint64(share*100)))
				s := openTest(t, t.TempDir()+"/s", nil)
				defer s.Close()
				parent, hot := scattered(r, 4096)
				child := parent.changed(r, share)
				mustImport(t, s, names[0], writeSource(t, parent.bytes(), nil), hot)
				mustImport(t, s, names[1], writeSource(t, child.bytes(), nil), nil)
				for range 2 {
					rep, err := s.GC(context.Background(), GCOptions{})
					if err != nil {
						t.Fatal(err)
					}
					if rep.DroppedPages != 0 {
						t.Errorf("%d pages dropped, of which none is dead", rep.DroppedPages)
					}
				}
				checkClean(t, s, true)
				for i, img := range []testImage{parent, child} {
					m := openImage(t, s, names[i])
					sameImage(t, m, img.bytes())
					m.Close()
				}
			})
		}
	}
}
