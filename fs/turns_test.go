package fs

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Many restores at once decode and push no more pieces at a time than there are CPUs or, for one, workers.
// They take turns: an image of one piece that is opened behind all others is there when each of them has
// brought a few, and those that are opened at once end at about the same time.
func TestRestoresTakeTurns(t *testing.T) {
	const images, pieces = 24, 40
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(3, 3))
		specs := []spec{guestSpec(rnd, "a", 1, time.Millisecond)}
		for i := range images {
			specs = append(specs, guestSpec(rnd, fmt.Sprint("b", i), pieces, time.Millisecond))
		}
		store := newFakeStore(specs...)
		store.piece = guestPiece
		k := &busyKernel{took: func(uint64) time.Duration { return time.Millisecond }}
		r := newHandRig(t, store, Options{Workers: 2, Policy: PolicyWorkingSetFull})
		r.kernel = k
		most := max(2, runtime.NumCPU())
		open := func(name string) {
			in := &fuse.OpenIn{InHeader: fuse.InHeader{NodeId: r.memoryNode(name)}}
			if st := r.raw.Open(nil, in, new(fuse.OpenOut)); !st.Ok() {
				t.Error(st)
			}
		}
		begin := time.Now()
		var all sync.WaitGroup
		took := make([]time.Duration, images)
		for i := range images {
			all.Go(func() {
				open(fmt.Sprint("b", i))
				took[i] = time.Since(begin)
			})
		}
		time.Sleep(10 * time.Millisecond)
		late := time.Now()
		open("a")
		// Two pieces of each of the others, which are under way already and then lined up.
		if d, most := time.Since(late), 4*images*time.Millisecond/time.Duration(most); d > most {
			t.Errorf("an image of one piece took %v behind %d others, want %v", d, images, most)
		}
		all.Wait()
		for i, d := range took {
			if d < took[0]*3/4 || d > took[0]*4/3 {
				t.Errorf("image %d took %v, the first %v", i, d, took[0])
			}
		}
		if k.most > most || k.pages != (images*pieces+1)*guestPiece {
			t.Errorf("%d pushes at once, want %d; %d pages", k.most, most, k.pages)
		}
	})
}
