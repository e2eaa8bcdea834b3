package torture

import (
	"encoding/binary"
	"math/rand/v2"
	"os"

	"github.com/thawfs/thaw/index"
)

const pageSize = index.PageSize

// pages is an image as the numbers of its pages: equal numbers are equal pages, 0 is zeros.
type pages []uint64

// fillPage makes the page with a number. Some compress well, some not at all.
func fillPage(page []byte, n uint64) {
	clear(page)
	if n == 0 {
		return
	}
	r := rand.New(rand.NewPCG(n, 99))
	step := [...]int{8, 64, 512}[n%3]
	for i := 0; i+8 <= len(page); i += 8 {
		if i%step == 0 {
			binary.LittleEndian.PutUint64(page[i:], r.Uint64())
		} else {
			binary.LittleEndian.PutUint64(page[i:], n)
		}
	}
}

func (p pages) bytes() []byte {
	b := make([]byte, len(p)*pageSize)
	for i, n := range p {
		if n != 0 {
			fillPage(b[i*pageSize:(i+1)*pageSize], n)
		}
	}
	return b
}

// writeSparse writes an image as a file with holes.
func writeSparse(path string, p pages, b []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := 0; i < len(p); {
		j := i + 1
		for j < len(p) && (p[j] == 0) == (p[i] == 0) {
			j++
		}
		if p[i] != 0 {
			if _, err := f.WriteAt(b[i*pageSize:j*pageSize], int64(i)*pageSize); err != nil {
				return err
			}
		}
		i = j
	}
	return f.Truncate(int64(len(b)))
}

// few are the numbers of pages that many images have.
const few = 40

func freshPage(r *rand.Rand) uint64 { return few + 1 + r.Uint64()>>8 }

// freshImage is like nothing before: pages of its own, pages that come again, runs of zeros.
func freshImage(r *rand.Rand, n int) pages {
	p := make(pages, n)
	if r.IntN(2) == 0 { // no two pages alike
		for i := range p {
			p[i] = freshPage(r)
		}
		return p
	}
	for i := 0; i < n; {
		kind := r.IntN(5)
		for end := min(n, i+1+r.IntN(80)); i < end; i++ {
			switch kind {
			case 0:
			case 1:
				p[i] = 1 + r.Uint64N(few)
			default:
				p[i] = freshPage(r)
			}
		}
	}
	return p
}

// size draws how many pages an image has: often few, as faults show with few as well and much faster,
// sometimes several leaves of the page map.
func size(r *rand.Rand, most int) int {
	return 1 + r.IntN([...]int{20, 150, 150, 600, most}[r.IntN(5)])
}

// derive returns a later version of an image.
func (p pages) derive(r *rand.Rand, most int) (pages, string) {
	out := append(pages(nil), p...)
	n := len(out)
	switch r.IntN(16) {
	case 0:
		r.Shuffle(n, func(i, j int) { out[i], out[j] = out[j], out[i] })
		return out, "shuffled"
	case 1:
		by := r.IntN(n)
		return append(out[by:], p[:by]...), "shifted round"
	case 2:
		by := 1 + r.IntN(700)
		return append(make(pages, by), out[:min(n, most)]...), "shifted up"
	case 3:
		out = append(out, freshImage(r, 1+r.IntN(most/2))...)
		return out[:min(most, len(out))], "grown"
	case 4:
		return out[:1+r.IntN(n)], "cut"
	case 5:
		copy(out[r.IntN(n):], p[r.IntN(n):])
		return out, "with pages twice"
	case 6:
		for range 1 + r.IntN(5) {
			at := r.IntN(n)
			clear(out[at : at+1+r.IntN(n-at)])
		}
		return out, "with zeros"
	}
	share := [...]float64{0, 0.002, 0.02, 0.1, 0.2, 0.3, 0.5, 0.7, 1}[r.IntN(9)]
	scattered := r.IntN(3) > 0
	for i := 0; i < n; {
		run := 1
		if !scattered {
			run = 1 + r.IntN(60)
		}
		change := r.Float64() < share
		for end := min(n, i+run); i < end; i++ {
			if change {
				out[i] = freshPage(r)
			}
		}
	}
	return out, "changed"
}
