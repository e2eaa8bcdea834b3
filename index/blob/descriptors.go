package blob

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// descriptors bounds how many files of a Dir have a descriptor: an image needs one for each pack, and a
// process may have only so many. When one more is needed, a file that was not read lately gives its own up
// and gets it back when it is read again (hostObject). The order is that of a clock: the hand passes over
// files that were read since it came by last. So a read only has to leave a mark, and takes no lock.
//
// Its lock is held for a few comparisons, never while a file is opened, read or closed.
type descriptors struct {
	mu    sync.Mutex
	limit int
	taken int           // files that have a descriptor or are about to get one; guarded by mu, as all below
	ring  []*hostObject // those that may give theirs up
	hand  int
}

// maxDescriptors is how many files of a Dir have a descriptor, where the process may have many.
const maxDescriptors = 4096

// newDescriptors takes half of what the process may have: the other half is for all else.
func newDescriptors() *descriptors {
	limit := uint64(maxDescriptors)
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err == nil {
		limit = max(min(limit, r.Cur/2), 1)
	}
	return &descriptors{limit: int(limit)}
}

// Places of a file in the ring; others are its index.
const (
	placeNone = -1 // it has no descriptor, or is about to lose it
	placeOwn  = -2 // it keeps its descriptor, because it cannot do without
)

// reserve makes room for one more descriptor. Past the limit are only as many as are being opened.
func (d *descriptors) reserve() {
	d.mu.Lock()
	var victim *hostObject
	if d.taken >= d.limit {
		victim = d.victimLocked()
	}
	d.taken++
	d.mu.Unlock()
	if victim != nil {
		d.retire(victim)
	}
}

// giveWay takes a descriptor from a file, although the limit is not reached; false: none has one to give.
func (d *descriptors) giveWay() bool {
	for {
		d.mu.Lock()
		victim := d.victimLocked()
		d.mu.Unlock()
		if victim == nil {
			return false
		}
		if d.retire(victim) {
			return true
		}
	}
}

// retire has a file that was taken out of the ring give up its descriptor; false if it cannot.
func (d *descriptors) retire(o *hostObject) bool {
	parked := o.park()
	d.mu.Lock()
	defer d.mu.Unlock()
	if parked || o.gone {
		d.taken--
	} else {
		o.place = placeOwn
	}
	return parked
}

// giveBack ends a reservation.
func (d *descriptors) giveBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken--
}

// add puts a file into the ring that has got what was reserved.
func (d *descriptors) add(o *hostObject) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o.place = len(d.ring)
	d.ring = append(d.ring, o)
}

// remove forgets a file that is closed.
func (d *descriptors) remove(o *hostObject) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o.gone = true
	if o.place == placeNone {
		return
	}
	d.taken--
	d.takeOutLocked(o)
}

func (d *descriptors) takeOutLocked(o *hostObject) {
	if o.place >= 0 {
		last := d.ring[len(d.ring)-1]
		d.ring[o.place], last.place = last, o.place
		d.ring = d.ring[:len(d.ring)-1]
	}
	o.place = placeNone
}

// victimLocked takes a file out of the ring that was not read lately; nil if the ring is empty.
func (d *descriptors) victimLocked() *hostObject {
	for len(d.ring) > 0 {
		d.hand %= len(d.ring)
		o := d.ring[d.hand]
		if !o.used.Swap(false) {
			d.takeOutLocked(o)
			return o
		}
		d.hand++
	}
	return nil
}

// isManyFiles says whether err is about too many open files.
func isManyFiles(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }
