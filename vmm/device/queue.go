package device

import "sync/atomic"

const (
	queueMax = 256 // descriptors of a queue, at most

	availNoInterrupt = 1 // flag of the available ring

	// Offset of the index in either ring.
	ringIndex = 2
	ringSlots = 4
	usedSlot  = 8 // bytes of an entry of the used ring
)

// queue is the device's side of a split virtqueue (virtio 1.2, 2.7): a table of descriptors, a ring in
// which the driver makes chains of descriptors available, and a ring in which the device returns them.
// All three are in guest memory. Chains are taken, served and returned one by one, in order.
//
// # Indexes and system calls
//
// Both sides assume that an index of 16 bits is read and written atomically. But the device accesses
// guest memory by system calls, and the kernel copies two bytes one after the other. An index that
// changes from 0x00ff to 0x0100 at that moment can be read as 0x01ff: 255 chains too many. So the
// driver's index is read until two reads agree; a mix of old and new is not read twice. The device's
// own index is written with the eight aligned bytes around it, which the kernel copies by one
// instruction. The driver's other words need no such care: entries are complete before their index is,
// and after it changes an event index, the driver checks the ring again.
type queue struct {
	ram   *RAM
	state QueueState
	fence atomic.Uint32

	// From the negotiated features.
	indirect bool // descriptors may be in indirect tables
	eventIdx bool // each side says at which index it needs a notification

	kicked bool // the ring must be checked; guarded by the transport's mutex
}

// check verifies what the driver (or a state file) says of a queue, before it is used.
func (q *queue) check() error {
	s := &q.state
	n := uint64(s.Size)
	switch {
	case n == 0 || n > queueMax || n&(n-1) != 0:
		return askReset("a queue of %d descriptors", n)
	case s.Desc%16 != 0 || s.Avail%2 != 0 || s.Used%4 != 0:
		return askReset("a queue at %#x, %#x, %#x is not aligned", s.Desc, s.Avail, s.Used)
	case !q.ram.contains(s.Desc, descSize*n),
		!q.ram.contains(s.Avail, ringSlots+2*n+2),
		!q.ram.contains(s.Used, ringSlots+usedSlot*n+2):
		return askReset("a queue at %#x, %#x, %#x is not in RAM", s.Desc, s.Avail, s.Used)
	}
	return nil
}

// pop takes the next chain that the driver has made available. It returns nil if there is none.
func (q *queue) pop() (*chain, error) {
	s := &q.state
	index, err := q.availIndex()
	if err != nil {
		return nil, err
	}
	waiting := index - s.LastAvail
	if waiting == 0 {
		return nil, nil
	}
	if waiting > s.Size {
		return nil, askReset("%d chains are available in a queue of %d", waiting, s.Size)
	}
	head, err := q.ram.read16(s.Avail + ringSlots + 2*uint64(s.LastAvail%s.Size))
	if err != nil {
		return nil, err
	}
	s.LastAvail++
	return q.readChain(head)
}

// availIndex returns how many chains the driver has made available so far, modulo 2^16.
func (q *queue) availIndex() (uint16, error) {
	var last uint16
	// A driver can add chains during these reads, but no more than the queue has room for.
	for try := range 2 * queueMax {
		index, err := q.ram.read16(q.state.Avail + ringIndex)
		if err != nil {
			return 0, err
		}
		if try > 0 && index == last {
			return index, nil
		}
		last = index
	}
	return 0, askReset("the index of the available ring changes on every read")
}

// push returns a chain to the driver. written is how many bytes of it the device has filled.
func (q *queue) push(head uint16, written uint32) error {
	s := &q.state
	var slot [usedSlot]byte
	le.PutUint32(slot[0:], uint32(head))
	le.PutUint32(slot[4:], written)
	at := s.Used + ringSlots + usedSlot*uint64(s.LastUsed%s.Size)
	if err := q.ram.write(at, slot[:]); err != nil {
		return err
	}
	// x86 keeps the order of stores, so a driver that sees the index also sees the entry.
	s.LastUsed++
	return q.writeUsedIndex()
}

// writeUsedIndex publishes LastUsed. Only the device writes this ring, so it can read its first bytes
// and write them back.
func (q *queue) writeUsedIndex() error {
	s := &q.state
	word := make([]byte, 8)
	if s.Used%8 != 0 {
		word = word[:4] // the other half is not part of the ring; no known driver aligns its ring like that
	}
	if err := q.ram.read(s.Used, word); err != nil {
		return err
	}
	le.PutUint16(word[ringIndex:], s.LastUsed)
	return q.ram.write(s.Used, word)
}

// rearm asks the driver for a notification when it adds a chain to the empty queue. more says that it
// has added one meanwhile, perhaps without a notification.
func (q *queue) rearm() (more bool, err error) {
	if !q.eventIdx {
		return false, nil // it always notifies
	}
	s := &q.state
	var event [2]byte
	le.PutUint16(event[:], s.LastAvail)
	if err := q.ram.write(s.Used+ringSlots+usedSlot*uint64(s.Size), event[:]); err != nil {
		return false, err
	}
	q.order()
	index, err := q.availIndex()
	return index != s.LastAvail, err
}

// wantsInterrupt says whether the driver needs an interrupt for the chain that was just returned.
func (q *queue) wantsInterrupt() (bool, error) {
	q.order()
	s := &q.state
	if !q.eventIdx {
		flags, err := q.ram.read16(s.Avail)
		return flags&availNoInterrupt == 0, err
	}
	event, err := q.ram.read16(s.Avail + ringSlots + 2*uint64(s.Size))
	return event == s.LastUsed-1, err
}

// order is a full memory barrier: earlier writes become visible before later reads. The driver writes
// and reads in the opposite order, and at least one side must see the other's write. On x86 a locked
// instruction does that.
func (q *queue) order() { q.fence.Add(1) }

// QueueState is the state of a virtqueue: its addresses, and how many chains the device has served.
// Everything else is in guest memory. Chains that were not taken are still in the available ring, so
// they need no state.
type QueueState struct {
	Desc, Avail, Used uint64 // guest physical addresses
	Size              uint16 // descriptors
	LastAvail         uint16 // chains taken, modulo 2^16
	LastUsed          uint16 // chains given back
	Ready             uint8
}

// restore sets the state of a queue.
func (q *queue) restore(s QueueState) error {
	q.state = s
	if s.Ready > 1 {
		return badState("a queue cannot have state %+v", s)
	}
	if s.Ready == 0 {
		if s.LastAvail != 0 || s.LastUsed != 0 || s.Size > queueMax {
			return badState("a queue of %d that is not ready has served %d chains", s.Size, s.LastUsed)
		}
		return nil
	}
	if err := q.check(); err != nil {
		return badState("%v", err)
	}
	return nil
}
