package index

import (
	"fmt"
	"testing"

	"github.com/thawfs/thaw/tests/blobtest"
)

// The parent of a checkpoint is the last one of its machine, also if there are many machines that have
// much in common, and many checkpoints of others are newer.
func TestParentIsOfTheSameMachine(t *testing.T) {
	r := newRand(t)
	s := openTest(t, t.TempDir()+"/s", blobtest.NewMem())
	const machines, pages = 3 * maxCandidates, 600
	common := distinct(1, pages)
	images := make([]testImage, machines)
	for state := range 3 {
		for i := range images {
			if state == 0 {
				images[i] = common.changed(r, 0.5)
				r.Shuffle(pages, func(a, b int) { images[i][a], images[i][b] = images[i][b], images[i][a] })
			} else {
				images[i] = images[i].changed(r, 0.2)
			}
			name := fmt.Sprintf("m%d.s%d", i, state)
			c, st := mustImport(t, s, name, writeSource(t, images[i].bytes(), nil), nil)
			if want := fmt.Sprintf("m%d.s%d", i, state-1); state > 0 && c.Parent != want {
				t.Errorf("the parent of %s is %q", name, c.Parent)
			}
			if state > 0 && st.NewPages > pages/3 {
				t.Errorf("%s: %d new pages", name, st.NewPages)
			}
		}
	}
	for i := range images {
		m := openImage(t, s, fmt.Sprintf("m%d.s2", i))
		sameImage(t, m, images[i].bytes())
		m.Close()
	}
}
