package device

// QueueState is the state of a virtqueue: where it is, and how far the device has come. All else is
// in guest memory. A chain that was not taken is still in the available ring, so nothing of it
// is saved.
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
		return badState("queue %+v", s)
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
