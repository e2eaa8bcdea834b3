package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
)

// badSectors is a blob of which some ranges cannot be read.
type badSectors struct {
	blob.Object
	bad [][2]int64
}

func (o badSectors) ReadAt(p []byte, off int64) (int, error) {
	for _, b := range o.bad {
		if off < b[1] && off+int64(len(p)) > b[0] {
			return 0, fmt.Errorf("sector at %d: %w", b[0], syscall.EIO)
		}
	}
	return o.Object.ReadAt(p, off)
}

// A bad sector costs the units that lie on it, however many are read at once.
func TestBadSectors(t *testing.T) {
	for _, profile := range []Profile{ProfileDefault, ProfileFast, profileHot} {
		m, data := damagedPack(t, profile)
		dec := mustDecoder(t)
		readBadSectors(t, m, data, dec)
	}
}

// readBadSectors reads a pack again and again, each time with some sectors that cannot be read.
func readBadSectors(t *testing.T, m *model, data []byte, dec *Decoder) {
	t.Helper()
	rng := rand.New(rand.NewPCG(6, 7))
	for range 60 {
		r, err := Open(open(t, data), "test", dec)
		if err != nil {
			t.Fatal(err)
		}
		var sick badSectors
		sick.Object = r.obj
		for range 1 + rng.IntN(3) {
			at := int64(rng.IntN(int(r.foot.dir.off)))
			sick.bad = append(sick.bad, [2]int64{at, at + 512})
		}
		r.obj = sick
		checkBadSectors(t, m, r)
		r.Close()
	}
}

func checkBadSectors(t *testing.T, m *model, r *Reader) {
	t.Helper()
	page := make([]byte, PageSize)
	good := make([]bool, len(m.pages))
	for i, p := range m.pages {
		err := r.ReadPage(uint32(i), page)
		if good[i] = err == nil; good[i] && !bytes.Equal(page, p) || !good[i] && !IsDamage(err) {
			t.Fatalf("slot %d: %v", i, err)
		}
	}
	all := make([]byte, len(m.pages)*PageSize)
	var span Span
	if err := r.Fetch(0, len(m.pages), &span); err != nil {
		t.Fatal(err)
	}
	for what, read := range map[string]func(*BadSlots){
		"reader": func(b *BadSlots) { r.ReadSlots(0, all, b) },
		"span":   func(b *BadSlots) { span.ReadSlots(0, all, b) },
	} {
		for i := range all {
			all[i] = 0xEE
		}
		var bad BadSlots
		read(&bad)
		for i, p := range m.pages {
			got, err := all[i*PageSize:][:PageSize], bad.Err(uint32(i))
			if (err == nil) != good[i] || err != nil && !IsDamage(err) {
				t.Fatalf("%s: slot %d: %v, alone: %v", what, i, err, good[i])
			}
			if !good[i] {
				p = make([]byte, PageSize)
			}
			if !bytes.Equal(got, p) {
				t.Fatalf("%s: slot %d has other bytes", what, i)
			}
		}
	}
	found := 0
	err := r.Verify(context.Background(), testKey, func(d Damage) { found++ }, nil)
	if err != nil || found == 0 {
		t.Errorf("verify found %d, %v", found, err)
	}
}

// rewriteWith writes the next generation of a pack in memory.
func rewriteWith(t *testing.T, r *Reader, keep Keep) (*blobtest.Mem, error) {
	t.Helper()
	store := blobtest.NewMem()
	w := mustWriter(t, store, r.Number(), r.Generation()+1)
	defer w.Abort()
	if err := Rewrite(context.Background(), r, w, mustEncoder(t, ProfileDefault), testKey, keep); err != nil {
		return nil, err
	}
	_, err := w.Finish()
	return store, err
}

// What is wrong does not get a right checksum by being copied.
func TestRewriteProves(t *testing.T) {
	dec := mustDecoder(t)
	m, store := smallPack(t, ProfileDefault)
	r := mustOpen(t, store, Name(9, 2), dec)
	hashes, err := r.Hashes()
	if err != nil {
		t.Fatal(err)
	}
	const slot = 5
	hashes[slot][3] ^= 1
	if _, err := rewriteWith(t, r, Keep{Hashes: hashes}); !errors.Is(err, ErrHash) {
		t.Errorf("a page has another hash: %v", err)
	}
	// It may be dropped, or replaced by a page with that hash, and by no other.
	if _, err := rewriteWith(t, r, Keep{Hashes: hashes,
		Slot: func(s uint32) bool { return s != slot }}); err != nil {
		t.Error(err)
	}
	other := bytes.Repeat([]byte{7}, PageSize)
	give := func(s uint32) []byte {
		if s == slot {
			return other
		}
		return nil
	}
	if _, err := rewriteWith(t, r, Keep{Hashes: hashes, Page: give}); err == nil {
		t.Error("a page of another hash was taken")
	}
	hashes[slot] = NewHasher(testKey).Sum(other)
	mem, err := rewriteWith(t, r, Keep{Hashes: hashes, Page: give})
	if err != nil {
		t.Fatal(err)
	}
	m.generation, m.pages[slot], m.hashes[slot] = 3, other, hashes[slot]
	m.check(t, mustOpen(t, mem, Name(9, 3), dec))
}

// A dead page comes back; one that cannot be copied becomes dead, with a word.
func TestRewriteRevives(t *testing.T) {
	dec := mustDecoder(t)
	m, store := smallPack(t, ProfileDefault)
	r := mustOpen(t, store, Name(9, 2), dec)
	dropped, err := rewriteWith(t, r, Keep{Slot: func(s uint32) bool { return s%4 != 1 }})
	if err != nil {
		t.Fatal(err)
	}
	less := mustOpen(t, dropped, Name(9, 3), dec)
	off, _ := less.Unit(2)
	less.obj = badSectors{less.obj, [][2]int64{{off, off + 1}}}
	lost := 0
	again, err := rewriteWith(t, less, Keep{
		Page: func(s uint32) []byte {
			if s%4 == 1 && s > 8 {
				return m.pages[s]
			}
			return nil
		},
		Lost: func(error) { lost++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	if lost == 0 {
		t.Error("nothing was lost")
	}
	back := mustOpen(t, again, Name(9, 4), dec)
	page := make([]byte, PageSize)
	for i, p := range m.pages {
		bad := false // on the bad sector
		if !less.Dead(uint32(i)) {
			at, _ := less.Unit(uint32(i))
			bad = at == off
		}
		err := back.ReadPage(uint32(i), page)
		dead := bad || i%4 == 1 && i <= 8
		if dead != errors.Is(err, ErrDead) || !dead && !bytes.Equal(page, p) {
			t.Errorf("slot %d: %v", i, err)
		}
	}
}
