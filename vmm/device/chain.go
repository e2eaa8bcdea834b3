package device

// Descriptors of a split virtqueue (virtio 1.2, 2.7.5).
const (
	descSize     = 16
	descNext     = 1 << 0
	descWrite    = 1 << 1
	descIndirect = 1 << 2
)

// segment is one buffer of a request, inside RAM.
type segment struct {
	addr uint64 // guest physical
	size uint32 // bytes, not 0
}

// chain is a request: what the driver gives the device to read, then where the device may write.
type chain struct {
	head    uint16
	in, out stream
}

// readChain follows descriptors from the one that the driver has made available. Nothing from the guest
// is trusted: indexes are compared with the size of their table, addresses with RAM, and a chain that
// is longer than the queue is refused, because it must contain a loop.
func (q *queue) readChain(head uint16) (*chain, error) {
	c := &chain{head: head, in: stream{ram: q.ram}, out: stream{ram: q.ram}}
	table, entries := q.state.Desc, uint32(q.state.Size)
	indirect := false
	for next, count := head, 0; ; {
		if uint32(next) >= entries {
			return nil, askReset("descriptor %d of a table of %d", next, entries)
		}
		var d [descSize]byte
		if err := q.ram.read(table+uint64(next)*descSize, d[:]); err != nil {
			return nil, err
		}
		addr, size, flags := le.Uint64(d[0:]), le.Uint32(d[8:]), le.Uint16(d[12:])
		if flags&descIndirect != 0 {
			if err := q.checkIndirect(addr, size, flags, indirect); err != nil {
				return nil, err
			}
			table, entries, indirect, next = addr, size/descSize, true, 0
			continue
		}
		if count++; count > int(q.state.Size) {
			return nil, askReset("a chain of more than %d descriptors", q.state.Size)
		}
		if err := c.add(segment{addr, size}, flags); err != nil {
			return nil, err
		}
		if flags&descNext == 0 {
			return c, nil
		}
		next = le.Uint16(d[14:])
	}
}

// checkIndirect verifies a descriptor that points to a table of descriptors. The table ends its chain
// and must not contain further tables.
func (q *queue) checkIndirect(addr uint64, size uint32, flags uint16, nested bool) error {
	switch {
	case !q.indirect:
		return askReset("an indirect descriptor, which was not negotiated")
	case nested || flags&descNext != 0:
		return askReset("an indirect descriptor with a next one, or in an indirect table")
	case size == 0 || size%descSize != 0:
		return askReset("an indirect table of %d bytes", size)
	case !q.ram.contains(addr, uint64(size)):
		return askReset("an indirect table of %d bytes at %#x is not in RAM", size, addr)
	}
	return nil
}

// add appends a descriptor's buffer.
func (c *chain) add(s segment, flags uint16) error {
	half := &c.in
	if flags&descWrite != 0 {
		half = &c.out
	} else if len(c.out.segs) > 0 {
		return askReset("a buffer to read follows one to write")
	}
	if s.size == 0 {
		return nil
	}
	if !half.ram.contains(s.addr, uint64(s.size)) {
		return askReset("a buffer of %d bytes at %#x is not in RAM", s.size, s.addr)
	}
	half.segs = append(half.segs, s)
	half.size += uint64(s.size)
	return nil
}

// stream is one half of a chain as a sequence of bytes, consumed from its front. How the driver has
// divided it into buffers does not matter (virtio 1.2, 2.7.4).
type stream struct {
	ram  *RAM
	segs []segment
	size uint64 // bytes left
}

// read consumes len(p) bytes. It fails if there are fewer.
func (s *stream) read(p []byte) error { return s.each(p, s.ram.read) }

// write fills len(p) bytes. It fails if there is less room.
func (s *stream) write(p []byte) error { return s.each(p, s.ram.write) }

func (s *stream) each(p []byte, transfer func(addr uint64, p []byte) error) error {
	for len(p) > 0 {
		if len(s.segs) == 0 {
			return askReset("a request is %d bytes short", len(p))
		}
		first := &s.segs[0]
		n := min(uint32(len(p)), first.size)
		if err := transfer(first.addr, p[:n]); err != nil {
			return err
		}
		p = p[n:]
		s.size -= uint64(n)
		first.addr += uint64(n)
		if first.size -= n; first.size == 0 {
			s.segs = s.segs[1:]
		}
	}
	return nil
}

// cutLast removes the last byte and returns it as a stream. The stream must not be empty.
func (s *stream) cutLast() stream {
	last := &s.segs[len(s.segs)-1]
	last.size--
	s.size--
	cut := stream{ram: s.ram, segs: []segment{{last.addr + uint64(last.size), 1}}, size: 1}
	if last.size == 0 {
		s.segs = s.segs[:len(s.segs)-1]
	}
	return cut
}
