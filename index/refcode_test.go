package index

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// randomRefs returns lists as they come about: zeros, runs in a few packs, single strays.
func randomRefs(r *rand.Rand, n int) []uint64 {
	refs := make([]uint64, 0, n)
	next := []uint64{1 << 24, 2<<24 + 77, 9<<24 + 1<<23}
	for len(refs) < n {
		run := min(1+r.IntN(1<<r.IntN(9)), n-len(refs))
		switch r.IntN(5) {
		case 0:
			refs = append(refs, make([]uint64, run)...)
		case 1:
			refs = append(refs, 1+r.Uint64N(maxRef))
		default:
			p := &next[r.IntN(len(next))]
			*p += r.Uint64N(20)
			for range run {
				refs = append(refs, *p)
				*p++
			}
		}
	}
	return refs
}

func TestRefsRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tail := []byte{0xaa, 0xbb}
	for range 2000 {
		refs := randomRefs(r, r.IntN(LeafPages+1))
		code := appendRefs(nil, refs)
		got := make([]uint64, len(refs))
		rest, err := decodeRefs(append(slices.Clone(code), tail...), got)
		if err != nil || !slices.Equal(rest, tail) || !slices.Equal(got, refs) {
			t.Fatalf("refs %v: got %v, rest %x, %v", refs, got, rest, err)
		}
	}
}

// What a page map usually looks like must cost next to nothing.
func TestRefsSmall(t *testing.T) {
	leaf := make([]uint64, LeafPages)
	for i := range leaf {
		leaf[i] = 5<<24 + 1000 + uint64(i)
	}
	if n := len(appendRefs(nil, leaf)); n > 8 {
		t.Errorf("one run takes %d bytes", n)
	}
	for i := 0; i < LeafPages; i += 8 {
		leaf[i] = 9<<24 + uint64(i/8)
	}
	if n := len(appendRefs(nil, leaf)); n > 2*2*64+16 {
		t.Errorf("every eighth page changed: %d bytes", n)
	}
}

func FuzzDecodeRefs(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		f.Add(appendRefs(nil, randomRefs(r, LeafPages)))
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		refs := make([]uint64, LeafPages)
		rest, err := decodeRefs(code, refs)
		if err != nil {
			return
		}
		for _, ref := range refs {
			if ref > maxRef {
				t.Fatalf("ref %#x", ref)
			}
		}
		// What was accepted has one meaning: coding it again and decoding that gives it back.
		again := make([]uint64, LeafPages)
		if _, err := decodeRefs(appendRefs(nil, refs), again); err != nil || !slices.Equal(refs, again) {
			t.Fatalf("%v of %d bytes left %d", err, len(code), len(rest))
		}
	})
}
