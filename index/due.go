package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Due is when a restored machine wants some pages of its working set, which follow one another in it.
type Due struct {
	Pages uint64
	// At is the first touch of one of them, counted from the machine's first instruction.
	At time.Duration
}

// A TimedFeed is a Feed that may know when a restored machine wants its pieces.
type TimedFeed interface {
	Feed
	// Due has an element for each piece, or none: it is known that nobody knows the times. ok is false
	// if the store was not told; the text of the working set may have them then.
	Due() (pieces []Due, ok bool)
}

// Wanted says when a restored machine touches one of some pages first. It is asked about parts of a
// working set, one after another. Nil: the store is not told.
type Wanted func(gfns []uint64) (at time.Duration, known bool)

// duesOf asks when the parts of a working set are wanted: those of its segment, which has the first stored
// pages, and then the others.
func duesOf(set []Run, stored uint64, wanted Wanted) []Due {
	dues := []Due{}
	if wanted == nil {
		return nil
	}
	untimed := false
	ask := func(gfns []uint64) error {
		at, known := wanted(gfns)
		untimed = untimed || !known
		dues = append(dues, Due{uint64(len(gfns)), max(at, 0)})
		return nil
	}
	_ = frameGFNs(set, stored, ask)
	_ = frameGFNs(tail(set, stored), maxPages, ask)
	if untimed {
		return []Due{}
	}
	return dues
}

const dueVersion = 1

// maxDueMicros bounds a time: a hundred years.
const maxDueMicros = 100 * 365 * 24 * uint64(time.Hour/time.Microsecond)

var errDues = errors.New("list of times is malformed")

// appendDues codes when parts of a working set are wanted: their number, and of each its pages and the
// microseconds since the last one (zigzag).
func appendDues(b []byte, dues []Due) []byte {
	b = append(b, dueVersion)
	b = binary.AppendUvarint(b, uint64(len(dues)))
	last := int64(0)
	for _, d := range dues {
		at := min(d.At.Microseconds(), int64(maxDueMicros))
		b = binary.AppendUvarint(b, d.Pages)
		b = binary.AppendUvarint(b, zigzag(at-last))
		last = at
	}
	return b
}

// parseDues reads what appendDues has written of a set of so many pages. Nil without an error: by a later
// version.
func parseDues(b []byte, pages uint64) ([]Due, error) {
	if len(b) == 0 {
		return nil, errDues
	}
	if b[0] != dueVersion {
		return nil, nil
	}
	n, w := binary.Uvarint(b[1:])
	if w <= 0 || n > uint64(len(b)) {
		return nil, errDues
	}
	b = b[1+w:]
	dues := make([]Due, 0, n)
	var at int64
	var sum uint64
	for range n {
		count, w := binary.Uvarint(b)
		if w <= 0 || count == 0 || count > pages-sum {
			return nil, fmt.Errorf("%w: pages", errDues)
		}
		step, v := binary.Uvarint(b[w:])
		if v <= 0 {
			return nil, errDues
		}
		b = b[w+v:]
		sum += count
		if at += unzigzag(step); at < 0 || uint64(at) > maxDueMicros {
			return nil, fmt.Errorf("%w: time", errDues)
		}
		dues = append(dues, Due{count, time.Duration(at) * time.Microsecond})
	}
	if len(b) != 0 || n > 0 && sum != pages {
		return nil, errDues
	}
	return dues, nil
}

// Due implements TimedFeed. A piece is wanted with the first of the parts that it has pages of.
func (f *workingSetFeed) Due() (pieces []Due, ok bool) {
	parts := f.m.root.dues
	switch {
	case parts == nil:
		return nil, false
	case len(parts) == 0 || f.Len() == 0:
		return nil, true
	}
	c := dueCursor{parts: parts}
	for _, frame := range f.frames {
		pieces = append(pieces, c.next(uint64(frame.pages)))
	}
	if f.m.s.blocks != nil { // the rest is in another order than the set
		return append(pieces, f.duesByPage(c)...), true
	}
	for _, gfns := range f.rest {
		pieces = append(pieces, c.next(uint64(len(gfns))))
	}
	return pieces, true
}

// duesByPage is when the pieces of the rest are wanted, of whose pages c has the times in the order of
// the set.
func (f *workingSetFeed) duesByPage(c dueCursor) (pieces []Due) {
	at := map[uint64]time.Duration{}
	if len(f.rest) > 0 {
		eachPage(tail(f.m.root.setRuns, f.stored), func(gfn uint64) { at[gfn] = c.next(1).At })
	}
	for _, gfns := range f.rest {
		d := Due{Pages: uint64(len(gfns)), At: at[gfns[0]]}
		for _, gfn := range gfns[1:] {
			d.At = min(d.At, at[gfn])
		}
		pieces = append(pieces, d)
	}
	return pieces
}

// A dueCursor goes through the parts of a working set.
type dueCursor struct {
	parts []Due
	used  uint64 // pages of the first part
}

// next is when the next pages are wanted.
func (c *dueCursor) next(pages uint64) Due {
	d := Due{Pages: pages}
	for first := true; pages > 0 && len(c.parts) > 0; first = false {
		part := c.parts[0]
		if first || part.At < d.At {
			d.At = part.At
		}
		n := min(pages, part.Pages-c.used)
		pages -= n
		if c.used += n; c.used == part.Pages {
			c.parts, c.used = c.parts[1:], 0
		}
	}
	return d
}
