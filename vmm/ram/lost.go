package ram

import (
	"errors"
	"fmt"
)

// LostError says that a page of guest memory could not be read: the server of the mount is gone, or the
// stored page is damaged. The machine has ended; the page was never replaced by zeros or other bytes.
type LostError struct {
	GFN   uint64 // guest frame number of the page, if Known
	Known bool
	RIP   uint64 // address of the guest's instruction; 0 if the guest did not need the page itself
	CR2   uint64 // the address of the guest's last page fault
	Sign  string // how the loss was noticed
	Err   error  // cause, may be nil
}

func (e *LostError) Error() string {
	s := "guest memory lost"
	if e.Known {
		s += fmt.Sprintf(": gfn %d (%#x)", e.GFN, e.GFN)
	}
	s += ": " + e.Sign
	if e.RIP != 0 {
		s += fmt.Sprintf(" (rip %#x, cr2 %#x)", e.RIP, e.CR2)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// ErrStuck says that a vCPU waits for a page, and the file system neither answers nor fails. No signal
// ends such a wait: the server must answer or die, or the mount must be aborted.
var ErrStuck = errors.New("a vCPU waits for a page, and the file system does not answer; " +
	"abort the mount")
