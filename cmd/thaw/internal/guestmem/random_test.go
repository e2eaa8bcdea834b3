package guestmem

import (
	"math/rand/v2"
	"testing"
)

// randomMachine has ranges anywhere, of any length, that do not overlap; some touch, some share a page.
func randomMachine(r *rand.Rand) *machine {
	var list []span
	at := int64(r.IntN(3 * PageSize))
	for range 1 + r.IntN(6) {
		n := int64(1 + r.IntN(40*PageSize))
		list = append(list, span{at, n})
		at += n
		switch r.IntN(4) {
		case 0:
		case 1:
			at += int64(r.IntN(100))
		default:
			at += int64(r.IntN(20)) * PageSize
		}
	}
	return newMachine(r.Uint64(), roundUp(list[len(list)-1].at+list[len(list)-1].n), list...)
}

// TestRandomMachines: any memory comes out of any format as it went in, from a file and from a stream.
func TestRandomMachines(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 2))
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	for range rounds {
		m := randomMachine(r)
		var data []byte
		switch r.IntN(4) {
		case 0:
			data = writeLime(m)
		case 1:
			o := coreOptions{narrow: r.IntN(2) == 0, big: r.IntN(2) == 0, xnum: r.IntN(2) == 0}
			if r.IntN(2) == 0 {
				o.notes = make([]byte, r.IntN(5000))
			}
			r.Shuffle(len(m.ranges), func(i, j int) { m.ranges[i], m.ranges[j] = m.ranges[j], m.ranges[i] })
			data = writeCore(m, o)
		case 2:
			data = writeQEMU(m, streamOptions{live: r.IntN(2) == 0, ignoreShared: r.IntN(2) == 0})
		default:
			data = writeQEMU(m, streamOptions{mapped: true})
		}
		for _, format := range []string{"gzip", "zstd"} {
			if r.IntN(5) == 0 {
				data = compressed(t, format, data)
			}
		}
		bothWays(t, data, m.bytes)
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, m.ranges)
		}
	}
}
