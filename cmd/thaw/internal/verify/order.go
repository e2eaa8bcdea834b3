package verify

import (
	"math/bits"
	"math/rand/v2"
)

// Orders, the values of Config.Order.
const (
	Sequential = "sequential" // block after block
	Random     = "random"     // each page once, in random order
)

// permutation puts 0..n-1 in a random order in constant memory: a Feistel network over the numbers
// of the next even count of bits, walked until the result is below n (less than four steps on
// average, as the numbers are at most four times as many as n).
type permutation struct {
	n, mask uint64
	half    uint
	keys    [4]uint64
}

func newPermutation(seed, n uint64) *permutation {
	rng := rand.New(rand.NewPCG(seed, 0))
	half := uint(max(bits.Len64(n-1), 2)+1) / 2
	p := &permutation{n: n, half: half, mask: 1<<half - 1}
	for i := range p.keys {
		p.keys[i] = rng.Uint64()
	}
	return p
}

// at is the number in place i; i < n.
func (p *permutation) at(i uint64) uint64 {
	for {
		l, r := i>>p.half, i&p.mask
		for _, key := range p.keys {
			l, r = r, l^(mix(r+key)&p.mask)
		}
		if i = l<<p.half | r; i < p.n {
			return i
		}
	}
}

// mix is the finaliser of MurmurHash3: every bit of x changes about half of the result.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
