package pack

import "encoding/binary"

// sketchSize is how many features of a page are kept.
const sketchSize = 32

// A sketch is what a page has in common with others: of the hashes of all its runs of eight bytes the
// smallest in each of sketchSize classes. Of two pages which share half of these runs about a third of the
// features are the same, wherever in the pages the runs lie.
type sketch [sketchSize]uint32

// shingle mixes a run of eight bytes.
func shingle(b []byte) uint64 {
	h := binary.LittleEndian.Uint64(b) * 0x9E3779B97F4A7C15
	h ^= h >> 29
	return h * 0xBF58476D1CE4E5B9
}

// sketchOf returns the sketch of a page.
func sketchOf(page []byte) (s sketch) {
	for i := range s {
		s[i] = 1<<32 - 1
	}
	for i := 0; i+8 <= len(page); i++ {
		h := shingle(page[i:])
		if v := uint32(h >> 8); v < s[h>>59] {
			s[h>>59] = v
		}
	}
	return s
}
