package device

import "io"

const (
	rngID  = 4        // device ID
	rngMax = 64 << 10 // bytes for one request
)

// RNG is a virtio-rng device (virtio 1.2, 5.4). The bytes for a request are drawn when it is served,
// and none are stored: a restored machine gets bytes that were drawn after the restore. But the guest
// itself may have stored some: see the package documentation.
type RNG struct {
	virtio
	source io.Reader
	buffer []byte
}

// NewRNG makes a device, drained. The source is [crypto/rand.Reader], except in tests.
func NewRNG(config VirtioConfig, source io.Reader) *RNG {
	r := &RNG{source: source, buffer: make([]byte, rngMax)}
	r.start(config, r, 1)
	return r
}

func (r *RNG) deviceID() uint32 { return rngID }
func (r *RNG) features() uint64 { return 0 }
func (r *RNG) config() []byte   { return nil }

// serve fills a request with at most rngMax bytes. A driver that needs more asks again.
func (r *RNG) serve(c *chain, _ uint64) (uint32, error) {
	if c.in.size > 0 || c.out.size == 0 {
		return 0, askReset("a request for random bytes with %d bytes to read and %d to write", c.in.size,
			c.out.size)
	}
	p := r.buffer[:min(c.out.size, rngMax)]
	defer clear(p)
	if _, err := io.ReadFull(r.source, p); err != nil {
		// An answer must have at least one random byte, so no answer is possible.
		return 0, askReset("random bytes cannot be read: %v", err)
	}
	return uint32(len(p)), c.out.write(p)
}

func (r *RNG) settle() error { return nil }
func (r *RNG) close() error  { return nil }

// RNGState is the state of an RNG. It contains no random bytes.
type RNGState struct {
	Transport TransportState
	Queue     [1]QueueState
}

// Tag returns the tag of the section in the state file.
func (*RNG) Tag() string { return "VIRTRNG" }

// State returns the state for a checkpoint. The device must be drained.
func (r *RNG) State() RNGState {
	var s RNGState
	s.Transport = r.save(s.Queue[:])
	return s
}

// Restore sets the state.
func (r *RNG) Restore(s RNGState) error { return r.load(s.Transport, s.Queue[:]) }
