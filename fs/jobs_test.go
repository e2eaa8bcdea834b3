package fs

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Jobs of one file come in their order, and files take turns, against queues of slices.
func TestJobs(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	q := newJobs()
	files := make([]*memoryFile, 12)
	for i := range files {
		files[i] = new(memoryFile)
	}
	waiting := map[*memoryFile][]uint64{}
	var turns []*memoryFile
	total, refused := 0, 0
	for n := range uint64(40_000) {
		if rnd.IntN(20) < 11 { // it fills up slowly
			m := files[rnd.IntN(1+rnd.IntN(len(files)))]
			room := len(waiting[m]) < queueLen-total
			if q.add(job{m: m, page: n}) != room {
				t.Fatalf("step %d: %d of %d wait for it: want %v", n, len(waiting[m]), total, room)
			}
			if !room {
				refused++
				continue
			}
			if len(waiting[m]) == 0 {
				turns = append(turns, m)
			}
			waiting[m] = append(waiting[m], n)
			total++
			continue
		}
		select {
		case <-q.ready:
		default:
			if total > 0 {
				t.Fatalf("step %d: %d jobs wait, none is ready", n, total)
			}
			continue
		}
		j := q.take()
		if m := turns[0]; j.m != m || j.page != waiting[m][0] {
			t.Fatalf("step %d: job %d comes out of turn", n, j.page)
		}
		turns = turns[1:]
		if waiting[j.m] = waiting[j.m][1:]; len(waiting[j.m]) > 0 {
			turns = append(turns, j.m)
		}
		total--
	}
	if refused == 0 {
		t.Error("it was never full")
	}
}

// One file alone cannot fill the queue: another one that comes then is next but one.
func TestJobsOfOneFile(t *testing.T) {
	q := newJobs()
	greedy, other := new(memoryFile), new(memoryFile)
	n := 0
	for q.add(job{m: greedy}) {
		n++
	}
	if n != queueLen/2 || !q.add(job{m: other}) {
		t.Fatalf("%d jobs of one file, and then none of another", n)
	}
	<-q.ready
	<-q.ready
	if first, second := q.take(), q.take(); first.m != greedy || second.m != other {
		t.Error("they do not take turns")
	}
}

func TestJobsAllocateNothing(t *testing.T) {
	q := newJobs()
	m := new(memoryFile)
	if n := testing.AllocsPerRun(1000, func() { q.add(job{m: m}); <-q.ready; q.take() }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

// Images that nobody has open: so many, and of large ones fewer, but always the newest.
func TestIdleList(t *testing.T) {
	var l idleList
	entries := map[string]*entry{}
	add := func(name string, pages uint64, want ...string) {
		t.Helper()
		if entries[name] == nil {
			entries[name] = newEntry(Checkpoint{Name: name, MemoryBytes: int64(pages * PageSize), DataPages: pages})
		}
		var over []string
		for _, e := range l.add(entries[name]) {
			over = append(over, e.name)
		}
		if !slices.Equal(over, want) {
			t.Fatalf("after %s %v are too many, want %v", name, over, want)
		}
	}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		add(name, 10)
	}
	add("a", 10)
	add("i", 10, "b")
	add("large", maxIdlePages-25, "c", "d", "e", "f", "g", "h")
	add("more", 10, "a")
	add("huge", 2*maxIdlePages, "i", "large", "more")
	add("z", 1, "huge")
}
