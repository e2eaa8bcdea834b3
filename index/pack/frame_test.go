package pack

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/thawfs/thaw/tests/blobtest"
)

// Quick frames, others, and those that do not compress lie side by side in a pack, and come back as
// what was put in, from a Frame that is used again. Each has the codec that it should have.
func TestQuickFrames(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 5))
	text := make([][]byte, 300)
	noise := make([][]byte, len(text))
	gfns := make([]uint64, len(text))
	for i := range text {
		text[i] = bytes.Repeat([]byte{byte(i), 'x', byte(i / 7), byte(rng.IntN(9))}, PageSize/4)
		noise[i] = make([]byte, PageSize)
		for j := range noise[i] {
			noise[i][j] = byte(rng.Uint32())
		}
		gfns[i] = uint64(i*3 - i%2)
	}
	frames := []struct {
		quick bool
		pages [][]byte
		codec codec
	}{
		{true, text, codecLZ4}, {false, text, codecFrame}, {true, noise, codecRaw},
		{true, text[:1], codecLZ4}, {false, noise[:2], codecRaw}, {true, text[7:], codecLZ4},
	}
	store, enc := blobtest.NewMem(), mustEncoder(t, ProfileDefault)
	w := mustWriter(t, store, 1, 0)
	var ef EncodedFrame
	for i, f := range frames {
		ef.Quick = f.quick
		if err := enc.EncodeFrame(&ef, gfns[:len(f.pages)], f.pages); err != nil {
			t.Fatal(err)
		}
		if ef.codec != f.codec {
			t.Errorf("frame %d has codec %d, want %d", i, ef.codec, f.codec)
		}
		if _, err := w.AppendFrame(&ef); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, store, Name(1, 0), mustDecoder(t))
	var got Frame
	for i, f := range frames {
		if err := r.ReadFrame(i, &got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.GFNs, gfns[:len(f.pages)]) || !bytes.Equal(got.Pages, slices.Concat(f.pages...)) {
			t.Errorf("frame %d comes back changed", i)
		}
	}
}

// Whatever is damaged in a quick frame is found: by its checksum, and, where a checksum was made of
// damaged bytes, by a decoder that fills all of its pages or fails.
func TestDamagedQuickFrame(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 7))
	enc, dec := mustEncoder(t, ProfileDefault), mustDecoder(t)
	pages := [][]byte{testPage(rng), testPage(rng), bytes.Repeat([]byte("thaw"), PageSize/4)}
	ef := EncodedFrame{Quick: true}
	if err := enc.EncodeFrame(&ef, []uint64{5, 6, 9}, pages); err != nil {
		t.Fatal(err)
	}
	store := blobtest.NewMem()
	w := mustWriter(t, store, 1, 0)
	if _, err := w.AppendFrame(&ef); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	sound := blobtest.Get(t, store, Name(1, 0))
	for i := range ef.data {
		damaged := bytes.Clone(sound)
		damaged[headerSize+i] ^= 0x10
		store.Replace(Name(1, 0), damaged)
		var f Frame
		var corrupt *CorruptError
		if err := mustOpen(t, store, Name(1, 0), dec).ReadFrame(0, &f); !errors.As(err, &corrupt) {
			t.Fatalf("byte %d is damaged: %v", i, err)
		}
	}
	stored := ef.data[4+int(ef.data[0]):] // behind the list of gfns
	for cut := range stored {
		out := make([]byte, len(pages)*PageSize)
		if err := dec.decode(ef.codec, out, append(make([]byte, zstdPrefix), stored[:cut]...)); err == nil {
			t.Fatalf("%d of %d bytes are decoded", cut, len(stored))
		}
	}
}
