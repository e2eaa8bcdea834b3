package pack

import (
	"bytes"
	"context"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/tests/blobtest"
)

func seedPack(f *testing.F, seed uint64) []byte {
	store := blobtest.NewMem()
	rng := rand.New(rand.NewPCG(seed, 3))
	fill(f, rng, mustWriter(f, store, 1, 0), mustEncoder(f, ProfileDefault), 5)
	return blobtest.Get(f, store, Name(1, 0))
}

// seedClusters is a pack with clusters.
func seedClusters(f *testing.F, seed uint64) []byte {
	store, enc, dec := blobtest.NewMem(), mustEncoder(f, ProfileDefault), mustDecoder(f)
	fill(f, rand.New(rand.NewPCG(seed, 4)), mustWriter(f, store, 1, 0), enc, 9)
	tier := func(s uint32) Tier { return Tier(s / 3 % 4) }
	rewriteTiers(f, store, mustOpen(f, store, Name(1, 0), dec), enc, Keep{Tier: tier}, dec)
	return blobtest.Get(f, store, Name(1, 1))
}

// bothSeeds calls fn with some packs of both versions.
func bothSeeds(f *testing.F, fn func(b []byte, foot footer)) {
	for seed := range uint64(3) {
		for _, b := range [][]byte{seedPack(f, seed), seedClusters(f, seed)} {
			foot, err := parseFooter(b[len(b)-footerSize:], int64(len(b)))
			if err != nil {
				f.Fatal(err)
			}
			fn(b, foot)
		}
	}
}

func FuzzFooter(f *testing.F) {
	bothSeeds(f, func(b []byte, _ footer) { f.Add(b[len(b)-footerSize:], int64(len(b))) })
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		foot, err := parseFooter(b, size)
		if err != nil || foot.version != formatVersion && foot.version != tierVersion {
			return
		}
		again, err := parseFooter(foot.append(nil), size)
		if err != nil || again != foot {
			t.Errorf("%+v comes back as %+v: %v", foot, again, err)
		}
	})
}

// FuzzDirectory: whatever the bytes, no panic and no memory beyond their size; and what is accepted
// is written back as a directory that means the same.
func FuzzDirectory(f *testing.F) {
	bothSeeds(f, func(b []byte, foot footer) {
		f.Add(b[foot.dir.off:][:foot.dir.len], foot.slots, foot.blocks, foot.records, foot.frames,
			foot.clusters, foot.dir.off)
	})
	f.Fuzz(func(t *testing.T, b []byte, slots, blocks, records, frames, clusters uint32, limit uint64) {
		foot := footer{
			slots: slots % MaxSlots, blocks: blocks % MaxSlots, records: records % MaxSlots,
			frames: frames % MaxSlots, clusters: clusters % MaxSlots, dir: section{off: limit % MaxBytes},
		}
		d, err := parseDirectory(b, foot)
		if err != nil {
			return
		}
		clustered := 0
		for slot, e := range d.slots {
			if e.codec == codecClustered {
				clustered++
				if d.slotsOf(int(e.off))[e.len] != uint32(slot) {
					t.Fatalf("slot %d is not where %+v says", slot, e)
				}
			} else if uint64(e.off)+uint64(e.len) > foot.dir.off || e.index() >= e.pages() {
				t.Fatalf("accepted %+v", e)
			}
		}
		if clustered != len(d.members) {
			t.Fatalf("%d slots in clusters, %d say so", len(d.members), clustered)
		}
		for _, c := range d.clusters {
			if uint64(c.off)+uint64(c.stored) > foot.dir.off || c.pages < 1 || c.pages > MaxClusterPages {
				t.Fatalf("accepted %+v", c)
			}
		}
		again, err := parseDirectory(d.append(nil), foot)
		private := cmp.AllowUnexported(directory{}, slotEntry{}, blockEntry{}, itemEntry{},
			clusterEntry{})
		if err != nil || !cmp.Equal(again, d, private) {
			t.Errorf("comes back changed: %v", err)
		}
	})
}

func FuzzGFNs(f *testing.F) {
	f.Add([]byte{0, 0}, 1)
	f.Add([]byte{5, 3, 1, 0}, 5)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		gfns, err := parseGFNs(nil, b, n&(MaxFramePages-1))
		if err != nil {
			return
		}
		if len(gfns) != n&(MaxFramePages-1) {
			t.Fatalf("%d gfns for %d pages", len(gfns), n)
		}
		for i := 1; i < len(gfns); i++ {
			if gfns[i] <= gfns[i-1] || gfns[i] > maxGFN {
				t.Fatalf("gfn %d after %d", gfns[i], gfns[i-1])
			}
		}
		list, err := appendGFNs(nil, gfns)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseGFNs(nil, list, len(gfns)); err != nil || !cmp.Equal(back, gfns) {
			t.Errorf("%v comes back as %v: %v", gfns, back, err)
		}
	})
}

// FuzzDecode gives each decoder any bytes at all: it fills dst whole or fails, and leaves what lies
// behind it alone.
func FuzzDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, profile := range []Profile{ProfileDefault, ProfileFast, profileHot} {
		enc := mustEncoder(f, profile)
		var eb EncodedBlock
		for range 4 {
			if err := enc.EncodeBlock(&eb, [][]byte{testPage(rng)}); err != nil {
				f.Fatal(err)
			}
			f.Add(byte(eb.units[0].codec), byte(0), eb.data)
			ef := EncodedFrame{Quick: true}
			if err := enc.EncodeFrame(&ef, []uint64{0}, [][]byte{testPage(rng)}); err != nil {
				f.Fatal(err)
			}
			f.Add(byte(ef.codec), byte(0), ef.data[4+len([]byte{0, 0}):])
		}
	}
	dec := mustDecoder(f)
	f.Fuzz(func(t *testing.T, c, pages byte, b []byte) {
		n := (int(pages)%maxUnitPages + 1) * PageSize
		buf := bytes.Repeat([]byte{0xEE}, n+64)
		_ = dec.decode(codec(c), buf[:n], append(make([]byte, zstdPrefix), b...))
		if !bytes.Equal(buf[n+slack:], bytes.Repeat([]byte{0xEE}, 64-slack)) {
			t.Error("decoded behind the end")
		}
	})
}

// FuzzUnit: any page comes back as it was, in any company.
func FuzzUnit(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		f.Add(testPage(rng), byte(3))
	}
	dec := mustDecoder(f)
	encs := []*Encoder{mustEncoder(f, ProfileDefault), mustEncoder(f, ProfileFast),
		mustEncoder(f, profileHot)}
	f.Fuzz(func(t *testing.T, b []byte, n byte) {
		var pages [][]byte
		for i := range int(n)%20 + 1 {
			p := make([]byte, PageSize)
			copy(p[i:], b)
			pages = append(pages, p)
		}
		for _, enc := range encs {
			store := blobtest.NewMem()
			w := mustWriter(t, store, 1, 0)
			var eb EncodedBlock
			if err := enc.EncodeBlock(&eb, pages); err != nil {
				t.Fatal(err)
			}
			if _, err := w.AppendBlock(&eb, make([]Hash, len(pages))); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Finish(); err != nil {
				t.Fatal(err)
			}
			r := mustOpen(t, store, Name(1, 0), dec)
			got := make([]byte, len(pages)*PageSize)
			var bad BadSlots
			r.ReadSlots(0, got, &bad)
			if len(bad.Slots()) > 0 || !bytes.Equal(got, bytes.Join(pages, nil)) {
				t.Fatal("changed")
			}
		}
	})
}

// FuzzOpen opens packs whose checksums of directory and footer are right, whatever they say, and
// reads what they claim to hold.
func FuzzOpen(f *testing.F) {
	bothSeeds(f, func(b []byte, foot footer) {
		f.Add(b[:foot.dir.off], b[foot.dir.off:][:foot.dir.len],
			foot.slots, foot.blocks, foot.records, foot.frames, foot.clusters)
	})
	dec := mustDecoder(f)
	f.Fuzz(func(t *testing.T, body, dir []byte, slots, blocks, records, frames, clusters uint32) {
		foot := footer{
			version: formatVersion, number: 1,
			slots: slots % 1000, blocks: blocks, records: records, frames: frames, clusters: clusters,
		}
		if clusters > 0 {
			foot.version = tierVersion
		}
		b := append(bytes.Clone(body), dir...)
		foot.dir = section{uint64(len(body)), uint32(len(dir)), crc32.Checksum(dir, crcTable)}
		foot.hashes = section{uint64(len(b)), foot.slots * HashSize, 0}
		b = append(b, make([]byte, foot.hashes.len)...)
		foot.size = uint64(len(b) + footerSize)
		store := blobtest.NewMem()
		store.Replace("x", foot.append(b))
		obj, err := store.Open(context.Background(), "x")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(obj, "x", dec)
		if err != nil {
			return
		}
		defer r.Close()
		if err := r.Verify(context.Background(), testKey, func(Damage) {}, nil); err != nil {
			t.Error(err) // all of it is in memory: nothing but damage can be wrong with it
		}
	})
}
