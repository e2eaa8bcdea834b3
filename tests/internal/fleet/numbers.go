package fleet

import "hash/fnv"

// numbers are a sequence that looks random (SplitMix64).
type numbers struct{ state uint64 }

// newNumbers begins the sequence that belongs to seeds.
func newNumbers(seeds ...uint64) *numbers {
	n := &numbers{}
	for _, s := range seeds {
		n.state = mix(n.state ^ s)
	}
	return n
}

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (n *numbers) next() uint64 {
	n.state += 0x9e3779b97f4a7c15
	return mix(n.state)
}

func (n *numbers) below(limit uint64) uint64 { return n.next() % limit }

// percent is true so often.
func (n *numbers) percent(p uint64) bool { return n.below(100) < p }

func hashOf(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}
