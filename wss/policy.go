package wss

import (
	"fmt"

	"github.com/dustin/go-humanize"
)

// What a Policy allows where nothing else is said. Sets of machines that do their work are far
// below: 4 % (MPlayer) and 18 % (SPECjbb, traced) of RAM in VEE'11, 5 to 11 % of guests of 128 GiB
// that were measured over a bounded window (fcvm). What lies above was found to be wrong or of no
// use: the access bits of VEE'11 named 32 % for SPECjbb, of which 37 % was used, a hint that had
// been united over the life of a clone grew to 95 % of RAM, and an honest set of 14 GiB, replayed
// whole, made restores 40 % slower than none (fcvm); from 20 % of RAM on a restore by working set
// loses, if only slightly, to an eager one (VEE'11, random touches).
const (
	// DefaultMaxShare is the share of the image that a set may have.
	DefaultMaxShare = 0.25
	// DefaultMaxFloor is allowed of any image. Small machines touch much of what little they have
	// (8 to 99 MB of 150 to 256 in REAP), and bringing that much takes a tenth of a second.
	DefaultMaxFloor = 128 << 20
)

// Policy says how large a working set may be that is brought before a machine runs.
type Policy struct {
	MaxShare float64 // of the image; 0: DefaultMaxShare; 1 and above: no limit
	Floor    int64   // bytes allowed whatever the share; 0: DefaultMaxFloor; below 0: none
}

// Limit is the number of pages of an image that a set may have.
func (p Policy) Limit(imagePages uint64) uint64 {
	share, floor := p.MaxShare, p.Floor
	if share <= 0 {
		share = DefaultMaxShare
	}
	if floor == 0 {
		floor = DefaultMaxFloor
	}
	if share >= 1 {
		return imagePages
	}
	limit := max(uint64(share*float64(imagePages)), uint64(max(floor, 0))/PageSize)
	return min(limit, imagePages)
}

// Check refuses a set beyond the limit: a *TooLargeError.
func (p Policy) Check(s *Set) error {
	if large := p.excess(s); large != nil {
		return large
	}
	return nil
}

// Apply returns the set, or its front if it is beyond the limit. The second
// result is the warning; nil: nothing was left out.
func (p Policy) Apply(s *Set) (*Set, *TooLargeError) {
	large := p.excess(s)
	if large == nil {
		return s, nil
	}
	return s.Bound(int64(large.Limit) * PageSize), large
}

// excess says by how much a set is beyond the limit; nil: it is not.
func (p Policy) excess(s *Set) *TooLargeError {
	pages, limit := s.Pages(), p.Limit(s.ImagePages)
	if pages <= limit {
		return nil
	}
	return &TooLargeError{Pages: pages, Limit: limit, ImagePages: s.ImagePages}
}

// TooLargeError says that a set is larger than a Policy allows. It matches ErrBadSet.
type TooLargeError struct{ Pages, Limit, ImagePages uint64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the working set has %s pages, %.0f %% of the image; at most %s (%s) may be "+
		"brought before the machine runs", humanize.Comma(int64(e.Pages)),
		100*float64(e.Pages)/float64(max(e.ImagePages, 1)), humanize.Comma(int64(e.Limit)),
		humanize.IBytes(e.Limit*PageSize))
}

// Is makes errors.Is(err, ErrBadSet) true.
func (e *TooLargeError) Is(target error) bool { return target == ErrBadSet }
