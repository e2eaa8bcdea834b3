package device

import "io"

const (
	rngID  = 4        // device ID
	rngMax = 64 << 10 // bytes for one request
)

// RNG is a virtio-rng device (virtio 1.2, 5.4). Each request is answered with bytes that are drawn
// when it is served, and none are kept: what a restored machine gets was drawn after the restore.
// But see the package documentation for what the guest itself may have kept.
type RNG struct {
	virtio
	source io.Reader
	buffer []byte
}

// NewRNG makes a device, drained. The source is [crypto/rand.Reader], other than in tests.
func NewRNG(config VirtioConfig, source io.Reader) *RNG {
	r := &RNG{source: source, buffer: make([]byte, rngMax)}
	r.start(config, r, 1)
	return r
}

func (r *RNG) deviceID() uint32 { return rngID }
func (r *RNG) features() uint64 { return 0 }
func (r *RNG) config() []byte   { return nil }

// serve fills a request. A driver that wants more than rngMax bytes asks again.
func (r *RNG) serve(c *chain, _ uint64) (uint32, error) {
	if c.in.size > 0 || c.out.size == 0 {
		return 0, askReset("a request for random bytes with %d to read, %d to write", c.in.size,
			c.out.size)
	}
	p := r.buffer[:min(c.out.size, rngMax)]
	defer clear(p)
	if _, err := io.ReadFull(r.source, p); err != nil {
		// The answer to a request is at least one random byte, so there is none.
		return 0, askReset("there are no random bytes: %v", err)
	}
	return uint32(len(p)), c.out.write(p)
}

func (r *RNG) settle() error { return nil }
func (r *RNG) close() error  { return nil }

// RNGState is the state of an RNG: no random bytes are in it.
type RNGState struct {
	Transport TransportState
	Queue     [1]QueueState
}

// Tag names the section of the state file.
func (*RNG) Tag() string { return "VIRTRNG" }

// State returns what is saved. The device must be drained.
func (r *RNG) State() RNGState {
	var s RNGState
	s.Transport = r.save(s.Queue[:])
	return s
}

// Restore sets it.
func (r *RNG) Restore(s RNGState) error { return r.load(s.Transport, s.Queue[:]) }
