package vmm

import "fmt"

// WrongByteError says that the guest found something else in its memory than must be there.
type WrongByteError struct {
	GFN             uint64 `json:"gfn"`
	Offset          uint64 `json:"offset"` // bytes into the page, of the 8-byte word that differs
	Expected, Found uint64 // the word; little-endian as in memory
	Version         uint32 `json:"version"` // of the page, as the guest knows it
}

func (e *WrongByteError) Error() string {
	s := fmt.Sprintf("wrong byte in guest memory: gfn %d (%#x) offset %#x: expected %#016x, "+
		"found %#016x", e.GFN, e.GFN, e.Offset, e.Expected, e.Found)
	// The first word of a page names the frame and the version that it was written for.
	if gfn, version := e.Found&(1<<40-1), uint32(e.Found>>40); e.Offset == 0 && version != 0 &&
		e.Expected&(1<<40-1) == e.GFN {
		if gfn == e.GFN {
			s += fmt.Sprintf(" (version %d of the page, expected %d)", version, e.Version)
		} else {
			s += fmt.Sprintf(" (perhaps version %d of gfn %d)", version, gfn)
		}
	}
	return s
}
