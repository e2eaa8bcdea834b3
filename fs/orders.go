package fs

import "context"

// numbers is the pages of an image by number.
type numbers struct {
	mem   Image
	pages uint64
}

var _ Order = numbers{}

func (o numbers) Len() uint64 { return o.pages }

func (o numbers) Position(gfn uint64) (uint64, bool) { return gfn, gfn < o.pages }

func (o numbers) Part(pos, max uint64) uint64 { return min(pos+max, o.pages) }

func (o numbers) GFNs(pos, end uint64, dst []uint64) []uint64 {
	for ; pos < min(end, o.pages); pos++ {
		dst = append(dst, pos)
	}
	return dst
}

// Read fails as a whole if a page cannot be read: a READ of the others brings them. Pushers read by number
// what is missing only: see pushers.byNumber.
func (o numbers) Read(_ context.Context, pos, end uint64, p *Piece) error {
	p.GFNs = o.GFNs(pos, end, p.GFNs[:0])
	return o.mem.ReadRange(pos, grow(&p.Pages, len(p.GFNs)*PageSize))
}
