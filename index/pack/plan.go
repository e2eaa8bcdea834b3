package pack

import (
	"container/heap"
	"slices"
)

// A plan puts pages into clusters. It begins each cluster with the first page that is left, and adds the
// page that has most in common with those in it: features of their sketches, and its place beside one of
// them, which counts like beside features. So neighbours stay together unless something else is clearly
// more like them.
type plan struct {
	per      int // pages of a cluster
	beside   int32
	features [][]uint32 // of each page, those that other pages have as well
	pages    [][]uint32 // that have each feature, ascending

	taken   []bool
	score   []int32 // of each page for the present cluster
	touched []uint32
	queue   candidates
	left    uint32 // no page before this one is left
}

// maxShared is how many pages may have a feature: one that is everywhere says nothing.
const maxShared = 64

// planClusters returns the pages of each cluster, ascending: indices of sketches, which are in the order of
// the places.
func planClusters(sketches []sketch, t clusterTuning) [][]uint32 {
	p := newPlan(sketches, t.pages, t.beside)
	var clusters [][]uint32
	for {
		c := p.next()
		if c == nil {
			return clusters
		}
		clusters = append(clusters, c)
	}
}

func newPlan(sketches []sketch, per int, beside int32) *plan {
	p := &plan{
		per: per, beside: beside, features: make([][]uint32, len(sketches)), taken: make([]bool, len(sketches)),
		score: make([]int32, len(sketches)),
	}
	// Each has its class, its hash, and 16 bits for the page.
	all := make([]uint64, 0, len(sketches)*sketchSize)
	for i := range sketches {
		for class, v := range sketches[i] {
			all = append(all, uint64(class)<<48|uint64(v)<<16|uint64(i))
		}
	}
	slices.Sort(all)
	for from := 0; from < len(all); {
		to := from + 1
		for to < len(all) && all[to]>>16 == all[from]>>16 {
			to++
		}
		if n := to - from; n > 1 && n <= maxShared {
			list := make([]uint32, 0, n)
			for _, x := range all[from:to] {
				page := uint32(x & (maxPlan - 1))
				p.features[page] = append(p.features[page], uint32(len(p.pages)))
				list = append(list, page)
			}
			p.pages = append(p.pages, list)
		}
		from = to
	}
	return p
}

// next makes the next cluster; nil if no page is left.
func (p *plan) next() (cluster []uint32) {
	for len(cluster) < p.per {
		page, ok := p.best()
		if !ok {
			if page, ok = p.first(); !ok {
				break
			}
		}
		cluster = append(cluster, page)
		p.take(page)
	}
	for _, q := range p.touched {
		p.score[q] = 0
	}
	p.touched, p.queue = p.touched[:0], p.queue[:0]
	slices.Sort(cluster)
	return cluster
}

// first returns the first page that is left.
func (p *plan) first() (uint32, bool) {
	for int(p.left) < len(p.taken) && p.taken[p.left] {
		p.left++
	}
	return p.left, int(p.left) < len(p.taken)
}

// best returns the page that is most like those of the cluster, the first of those that are equally.
func (p *plan) best() (uint32, bool) {
	for len(p.queue) > 0 {
		c := heap.Pop(&p.queue).(candidate)
		if !p.taken[c.page] && p.score[c.page] == c.score {
			return c.page, true
		}
	}
	return 0, false
}

// take puts a page into the cluster.
func (p *plan) take(page uint32) {
	p.taken[page] = true
	for _, f := range p.features[page] {
		for _, q := range p.pages[f] {
			p.add(q, 1)
		}
	}
	if page > 0 {
		p.add(page-1, p.beside)
	}
	if int(page)+1 < len(p.taken) {
		p.add(page+1, p.beside)
	}
}

// add adds to the score of a page.
func (p *plan) add(page uint32, n int32) {
	if p.taken[page] {
		return
	}
	if p.score[page] == 0 {
		p.touched = append(p.touched, page)
	}
	p.score[page] += n
	heap.Push(&p.queue, candidate{p.score[page], page})
}

// candidates is a heap of pages with the scores that they had once.
type candidates []candidate

type candidate struct {
	score int32
	page  uint32
}

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, j int) bool {
	return c[i].score > c[j].score || c[i].score == c[j].score && c[i].page < c[j].page
}
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(candidate)) }
func (c *candidates) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}
