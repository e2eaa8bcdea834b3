package readbench

import (
	"math/bits"
	"math/rand/v2"
)

// pattern says which block comes next. Not safe for concurrent use.
type pattern interface{ next() uint64 }

// newPattern makes the pattern of one job over n blocks.
func newPattern(c *Config, n uint64, job int) pattern {
	rng := rand.New(rand.NewPCG(c.Seed, uint64(job)))
	switch c.RW {
	case Read:
		return &sequential{n: n}
	case Zipf:
		return &zipf{
			ranks: rand.NewZipf(rng, c.ZipfTheta, 1, n-1),
			order: newPermutation(rng, n),
		}
	default:
		return &shuffled{rng: rng, n: n, order: newPermutation(rng, n)}
	}
}

type sequential struct{ n, at uint64 }

func (s *sequential) next() uint64 {
	block := s.at
	if s.at++; s.at == s.n {
		s.at = 0
	}
	return block
}

// shuffled has every block once in each round, in an order that is another in each.
type shuffled struct {
	rng   *rand.Rand
	n, at uint64
	order permutation
}

func (s *shuffled) next() uint64 {
	if s.at == s.n {
		s.at, s.order = 0, newPermutation(s.rng, s.n)
	}
	s.at++
	return s.order.at(s.at - 1)
}

// zipf draws ranks, the low ones often, and spreads them over the file.
type zipf struct {
	ranks *rand.Zipf
	order permutation
}

func (z *zipf) next() uint64 { return z.order.at(z.ranks.Uint64()) }

// permutation puts 0..n-1 in a random order in constant memory: a Feistel network over the numbers
// of the next even count of bits, walked until the result is below n (less than four steps on
// average, as the numbers are at most four times as many as n).
type permutation struct {
	n, mask uint64
	half    uint
	keys    [4]uint64
}

func newPermutation(rng *rand.Rand, n uint64) permutation {
	half := uint(max(bits.Len64(n-1), 2)+1) / 2
	p := permutation{n: n, half: half, mask: 1<<half - 1}
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
