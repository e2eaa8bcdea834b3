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
		s[i] = noFeature
	}
	for i := 0; i+8 <= len(page); i++ {
		h := shingle(page[i:])
		if v := uint32(h >> 8); v < s[h>>59] {
			s[h>>59] = v
		}
	}
	return s
}

// noFeature is of a class in which no run of a page is.
const noFeature = 1<<32 - 1

const (
	// alikeFeatures is the part of their features that two pages which are like one another have in common,
	// one in so many: as a rule they share a quarter of their runs.
	alikeFeatures = 5
	// alikeWords is the part of their words that they have in the same places, one in so many.
	alikeWords = 4
)

// Alike says whether a page is so much like another, which may be its former content, that it takes much less
// space in a cluster with it.
func Alike(a, b []byte) bool {
	same, words := 0, 0
	for i := 0; i+4 <= len(a); i += 4 {
		x, y := binary.LittleEndian.Uint32(a[i:]), binary.LittleEndian.Uint32(b[i:])
		if x|y != 0 {
			words++
			if x == y {
				same++
			}
		}
	}
	return same*alikeWords > words || sketchOf(a).alike(sketchOf(b))
}

func (s sketch) alike(o sketch) bool {
	common, all := 0, 0
	for i := range s {
		if s[i] != noFeature || o[i] != noFeature {
			all++
		}
		if s[i] == o[i] && s[i] != noFeature {
			common++
		}
	}
	return common > 1 && common*alikeFeatures >= all
}
