package wss

// Overlap says how much two sets have in common, in pages.
type Overlap struct {
	A    uint64 `json:"a"`
	B    uint64 `json:"b"`
	Both uint64 `json:"both"`
}

// Overlap compares two valid sets, whatever their sources. It needs memory for their runs, not for
// the pages that they claim.
func (s *Set) Overlap(with *Set) Overlap {
	var o Overlap
	var others []span
	for first, count := range with.Ascending() {
		others = append(others, span{first, count})
		o.B += count
	}
	for first, count := range s.Ascending() {
		o.A += count
		for len(others) > 0 && others[0].first < first+count {
			other := others[0]
			from, to := max(first, other.first), min(first+count, other.first+other.count)
			o.Both += max(to, from) - from
			if other.first+other.count > first+count {
				break // it reaches into the next one
			}
			others = others[1:]
		}
	}
	return o
}

// Jaccard is the share of the pages of either that both have; NaN if both are empty.
func (o Overlap) Jaccard() float64 { return ratio(o.Both, o.A+o.B-o.Both) }

// OfA is the share of A that B has too; NaN if A is empty. If A was touched and B prefetched it is
// the recall, the other way round the precision.
func (o Overlap) OfA() float64 { return ratio(o.Both, o.A) }

// OfB is the share of B that A has too; NaN if B is empty.
func (o Overlap) OfB() float64 { return ratio(o.Both, o.B) }
