package pack

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/thawfs/thaw/index/blob"
)

// testPage makes a page that compresses about 3:1, or not at all for every seventh.
func testPage(rng *rand.Rand) []byte {
	p := make([]byte, PageSize)
	for i := 0; i < len(p); {
		n := 1 + rng.IntN(32)
		c := byte(rng.UintN(256))
		noise := rng.IntN(4) == 0
		for range min(n, len(p)-i) {
			p[i] = c
			if noise {
				p[i] = byte(rng.UintN(256))
			}
			i++
		}
	}
	return p
}

func TestRoundTrip(t *testing.T) {
	ctx := context.Background()
	for _, profile := range []Profile{ProfileDefault, ProfileFast} {
		rng := rand.New(rand.NewPCG(1, 2))
		store := blob.NewMem()
		bw, err := store.Create(ctx, Name(7, 3))
		if err != nil {
			t.Fatal(err)
		}
		w, err := NewWriter(bw, 7, 3)
		if err != nil {
			t.Fatal(err)
		}
		enc, err := NewEncoder(profile)
		if err != nil {
			t.Fatal(err)
		}
		hasher := NewHasher(HashKey{1})
		var pages [][]byte
		var hashes []Hash
		var eb EncodedBlock
		for range 50 {
			var block [][]byte
			for range 1 + rng.IntN(20) {
				block = append(block, testPage(rng))
			}
			if err := enc.EncodeBlock(&eb, block); err != nil {
				t.Fatal(err)
			}
			var hs []Hash
			for _, p := range block {
				hs = append(hs, hasher.Sum(p))
			}
			first, err := w.AppendBlock(&eb, hs)
			if err != nil || int(first) != len(pages) {
				t.Fatal(first, err)
			}
			pages, hashes = append(pages, block...), append(hashes, hs...)
			if _, err := w.AppendRecord(5, bytes.Join(block, nil)); err != nil {
				t.Fatal(err)
			}
		}
		var ef EncodedFrame
		if err := enc.EncodeFrame(&ef, []uint64{1, 2, 3, 9}, pages[:4]); err != nil {
			t.Fatal(err)
		}
		if _, err := w.AppendFrame(&ef); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		obj, err := store.Open(ctx, Name(7, 3))
		if err != nil {
			t.Fatal(err)
		}
		dec, err := NewDecoder()
		if err != nil {
			t.Fatal(err)
		}
		defer dec.Close()
		r, err := Open(obj, Name(7, 3), dec)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, PageSize)
		for i, p := range pages {
			if err := r.ReadPage(uint32(i), got); err != nil || !bytes.Equal(got, p) {
				t.Fatalf("slot %d: %v", i, err)
			}
		}
		all := make([]byte, len(pages)*PageSize)
		if err := r.ReadSlots(0, all); err != nil || !bytes.Equal(all, bytes.Join(pages, nil)) {
			t.Fatal("all slots", err)
		}
		for b := range r.Blocks() {
			first, n := r.BlockSlots(b)
			dst := make([]byte, n*PageSize)
			want := all[first*PageSize:][:len(dst)]
			if err := r.ReadBlock(b, dst); err != nil || !bytes.Equal(dst, want) {
				t.Fatal("block", b, err)
			}
			if rec, err := r.ReadRecord(b, nil); err != nil || !bytes.Equal(rec, want) {
				t.Fatal("record", b, err)
			}
		}
		hs, err := r.Hashes()
		if err != nil || len(hs) != len(hashes) || hs[10] != hashes[10] {
			t.Fatal("hashes", err)
		}
		var f Frame
		if err := r.ReadFrame(0, &f); err != nil || len(f.GFNs) != 4 || f.GFNs[3] != 9 ||
			!bytes.Equal(f.Pages, all[:4*PageSize]) {
			t.Fatal("frame", err, f.GFNs)
		}
		if n := testing.AllocsPerRun(100, func() { _ = r.ReadPage(3, got) }); n != 0 {
			t.Errorf("%v: ReadPage allocates %v times", profile, n)
		}
	}
}
