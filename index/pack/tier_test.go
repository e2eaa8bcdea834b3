package pack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// randomTiers gives each slot a tier: like its neighbours, as a rule.
func randomTiers(rng *rand.Rand, n int) []Tier {
	tiers := make([]Tier, n)
	now := Tier(rng.IntN(4))
	for i := range tiers {
		if rng.IntN(6) == 0 {
			now = Tier(rng.IntN(4))
		}
		tiers[i] = now
	}
	return tiers
}

// rewriteTiers writes the next generation of a pack in memory.
func rewriteTiers(t testing.TB, store *blobtest.Mem, r *Reader, enc *Encoder, keep Keep, dec *Decoder,
) *Reader {
	t.Helper()
	w := mustWriter(t, store, r.Number(), r.Generation()+1)
	defer w.Abort()
	if err := Rewrite(context.Background(), r, w, enc, testKey, keep); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, store, Name(r.Number(), r.Generation()+1), dec)
}

// checkTiers says whether pages are stored as they should be. was is the pack before.
func checkTiers(t testing.TB, m *model, was, r *Reader, tiers []Tier, enc *Encoder) {
	t.Helper()
	clustered := 0
	for i, page := range m.pages {
		slot := uint32(i)
		e := r.dir.slots[slot]
		_, in := r.ClusterOf(slot)
		_, before := was.ClusterOf(slot)
		ok := true
		switch {
		case page == nil:
			ok = e.codec == codecDead
		case tiers[i] == TierHot:
			ok = e.codec == codecLZ4 && e.pages() == 1 || e.codec == codecRaw
		case tiers[i] == TierWarm:
			ok = e.codec == enc.tuning.codec || e.codec == codecRaw
		case tiers[i] == TierCold:
			ok = in || e.codec == codecRaw || e.inBlock() && !before // a cluster may save nothing
		default:
			ok = in == before
		}
		if !ok {
			t.Fatalf("slot %d of tier %d: codec %d, in a cluster: %v, before: %v", i, tiers[i], e.codec, in, before)
		}
		if in {
			clustered++
		}
	}
	members := 0
	for c := range r.Clusters() {
		members += len(r.ClusterSlots(c))
	}
	if members != clustered {
		t.Fatalf("%d slots in clusters, the clusters have %d", clustered, members)
	}
	want := uint32(formatVersion)
	if clustered > 0 || was.foot.version == tierVersion || slices.Contains(tiers, TierHot) {
		want = tierVersion
	}
	head := make([]byte, headerSize)
	if _, err := r.obj.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	if h, err := parseHeader(head); err != nil || h.version != want || r.foot.version != want {
		t.Fatalf("header of version %d, footer of version %d, want %d: %v", h.version, r.foot.version, want, err)
	}
}

// slowObject is a blob on a high-latency medium.
type slowObject struct{ blob.Object }

func (slowObject) Medium() blob.Medium { return blob.Medium{Latency: 10 * time.Millisecond} }

// TestTiers writes packs again and again, each time with other tiers and fewer pages.
func TestTiers(t *testing.T) {
	dec := mustDecoder(t)
	seeds := uint64(12)
	if raceEnabled {
		seeds = 3
	}
	for seed := range seeds {
		for _, profile := range []Profile{ProfileDefault, ProfileFast} {
			t.Run(fmt.Sprintf("%v/%d", profile, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, uint64(profile)+100))
				enc, store := mustEncoder(t, profile), blobtest.NewMem()
				m := fill(t, rng, mustWriter(t, store, 3, 0), enc, 30)
				r := mustOpen(t, store, Name(3, 0), dec)
				for range 6 {
					for i := range m.pages {
						if rng.IntN(12) == 0 {
							m.pages[i] = nil
						}
					}
					tiers := randomTiers(rng, len(m.pages))
					m.generation++
					if rng.IntN(2) == 0 {
						r.obj = slowObject{r.obj}
					}
					next := rewriteTiers(t, store, r, enc, Keep{
						Slot: func(s uint32) bool { return m.pages[s] != nil },
						Tier: func(s uint32) Tier { return tiers[s] },
					}, dec)
					m.check(t, next)
					checkTiers(t, m, r, next, tiers, enc)
					r = next
				}
			})
		}
	}
}

// coldPack makes a pack of which about two thirds of the pages lie in clusters, after some steps of fill.
func coldPack(t testing.TB, profile Profile, steps int) (*model, *blobtest.Mem, *Reader) {
	t.Helper()
	dec, enc := mustDecoder(t), mustEncoder(t, profile)
	for seed := uint64(0); ; seed++ {
		store := blobtest.NewMem()
		m := fill(t, rand.New(rand.NewPCG(seed, 78)), mustWriter(t, store, 9, 2), enc, steps)
		r := rewriteTiers(t, store, mustOpen(t, store, Name(9, 2), dec), enc, Keep{
			Tier: func(s uint32) Tier {
				if s%3 == 0 {
					return TierKeep
				}
				return TierCold
			},
		}, dec)
		m.generation = 3
		if r.Clusters() >= 3 && len(m.records) > 0 && len(m.frames) > 0 {
			return m, store, r
		}
	}
}

// A collection keeps the clusters of which all is live as they are, and makes new ones of what else is.
func TestRewriteKeepsClusters(t *testing.T) {
	for _, profile := range []Profile{ProfileDefault, ProfileFast} {
		m, store, r := coldPack(t, profile, 40)
		enc, dec := mustEncoder(t, profile), mustDecoder(t)
		same := rewriteTiers(t, store, r, enc, Keep{}, dec)
		m.generation = 4
		m.check(t, same)
		if same.Clusters() != r.Clusters() || same.Size() != r.Size() {
			t.Errorf("%d clusters, %d bytes; there were %d and %d", same.Clusters(), same.Size(), r.Clusters(),
				r.Size())
		}
		dead := same.ClusterSlots(1)[0]
		m.pages[dead] = nil
		less := rewriteTiers(t, store, same, enc, Keep{Slot: func(s uint32) bool { return s != dead }}, dec)
		m.generation = 5
		m.check(t, less)
		for slot := range m.pages {
			_, was := same.ClusterOf(uint32(slot))
			if _, is := less.ClusterOf(uint32(slot)); is != (was && uint32(slot) != dead) {
				t.Errorf("slot %d was in a cluster: %v, is: %v", slot, was, is)
			}
		}
	}
}

// TestTierFails fails each operation of the blob store in turn: Rewrite says so, and leaves nothing behind,
// or it has read the same again, and all is there.
func TestTierFails(t *testing.T) {
	m, from, _ := coldPack(t, ProfileDefault, 8)
	m.generation = 4
	for i := range m.pages {
		if i%7 == 0 {
			m.pages[i] = nil
		}
	}
	data, enc, dec := blobtest.Get(t, from, Name(9, 3)), mustEncoder(t, ProfileDefault), mustDecoder(t)
	work := func(s *errblob.Store) error {
		obj, err := s.Open(context.Background(), Name(9, 3))
		if err != nil {
			return err
		}
		r, err := Open(obj, "test", dec)
		if err != nil {
			return err
		}
		defer r.Close()
		bw, err := s.Create(context.Background(), Name(9, 4))
		if err != nil {
			return err
		}
		w, err := NewWriter(bw, 9, 4)
		if err != nil {
			return err
		}
		defer w.Abort()
		keep := Keep{
			Slot: func(s uint32) bool { return s%7 != 0 }, Tier: func(s uint32) Tier { return Tier(s / 5 % 4) },
			Lost: func(err error) { t.Errorf("lost: %v", err) },
		}
		if err := Rewrite(context.Background(), r, w, enc, testKey, keep); err != nil {
			return err
		}
		_, err = w.Finish()
		return err
	}
	mem := blobtest.NewMem()
	mem.Replace(Name(9, 3), data)
	clean := errblob.New(mem, nil)
	if err := work(clean); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for n := 1; n <= clean.Operations(); n++ {
		mem := blobtest.NewMem()
		mem.Replace(Name(9, 3), data)
		err := work(errblob.New(mem, errblob.FailNth(n, errblob.ErrInjected)))
		if err == nil {
			m.check(t, mustOpen(t, mem, Name(9, 4), dec))
			continue
		}
		failed++
		if !errors.Is(err, errblob.ErrInjected) {
			t.Errorf("operation %d failed, the rewrite says %v", n, err)
		}
		if left, err := mem.List(context.Background(), ""); err != nil || len(left) != 1 {
			t.Errorf("operation %d failed and left %v, %v", n, left, err)
		}
	}
	if failed < 5 {
		t.Errorf("only %d operations failed", failed)
	}
}

func TestReadPageOfClusterDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector sync.Pool drops at random what it is given")
	}
	m, _, r := coldPack(t, ProfileDefault, 20)
	page, cluster := make([]byte, PageSize), make([]byte, MaxClusterPages*PageSize)
	slot, bad := uint32(0), BadSlots{}
	for what, read := range map[string]func(){
		"ReadPage":    func() { _ = r.ReadPage(slot, page) },
		"ReadCluster": func() { r.ReadCluster(int(slot)%r.Clusters(), cluster, &bad) },
		"ReadSlots":   func() { r.ReadSlots(slot, cluster[:8*PageSize], &bad) },
		"ReadSpots":   func() { r.ReadSpots(uint32(r.Slots()), cluster[:40*PageSize], &bad) },
		"ClusterSlots": func() {
			if c, ok := r.ClusterOf(slot); ok {
				_ = r.ClusterSlots(c)
			}
		},
	} {
		if n := testing.AllocsPerRun(300, func() { read(); slot = (slot + 1) % uint32(len(m.pages)-8) }); n != 0 {
			t.Errorf("%s allocates %v times", what, n)
		}
	}
}

// Pages that have nothing in common, and take no less in a cluster, stay where they are.
func TestUselessClusters(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	enc, store, dec := mustEncoder(t, ProfileDefault), blobtest.NewMem(), mustDecoder(t)
	w := mustWriter(t, store, 3, 0)
	for range 20 {
		pages, hashes := make([][]byte, BlockPages), make([]Hash, BlockPages)
		for i := range pages {
			pages[i] = make([]byte, PageSize)
			for j := range pages[i] {
				pages[i][j] = byte(rng.IntN(7))
			}
			hashes[i] = NewHasher(testKey).Sum(pages[i])
		}
		var b EncodedBlock
		if err := enc.EncodeBlock(&b, pages); err != nil {
			t.Fatal(err)
		}
		if _, err := w.AppendBlock(&b, hashes); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, store, Name(3, 0), dec)
	next := rewriteTiers(t, store, r, enc, Keep{Tier: func(uint32) Tier { return TierCold }}, dec)
	if next.Size() > r.Size() {
		t.Errorf("%d bytes became %d, in %d clusters", r.Size(), next.Size(), next.Clusters())
	}
}

// What is wrong does not get a right checksum by coming into a cluster, staying in one, or leaving it.
func TestTiersProve(t *testing.T) {
	m, _, r := coldPack(t, ProfileDefault, 20)
	enc, dec := mustEncoder(t, ProfileDefault), mustDecoder(t)
	in, out := r.ClusterSlots(1)[2], uint32(0)
	for ; r.dir.slots[out].codec != codecZstd; out++ {
	}
	for _, slot := range []uint32{in, out} {
		for _, tier := range []Tier{TierKeep, TierHot, TierWarm, TierCold} {
			hashes, err := r.Hashes()
			if err != nil {
				t.Fatal(err)
			}
			hashes[slot][3] ^= 1
			keep := Keep{Hashes: hashes, Tier: func(uint32) Tier { return tier }}
			w := mustWriter(t, blobtest.NewMem(), 9, 4)
			if err := Rewrite(context.Background(), r, w, enc, testKey, keep); !errors.Is(err, ErrHash) {
				t.Errorf("slot %d, tier %d: %v", slot, tier, err)
			}
			w.Abort()
			// It stays what it is where that is not to be an error.
			lost := 0
			keep.Lost = func(err error) {
				if lost++; !errors.Is(err, ErrHash) {
					t.Error(err)
				}
			}
			next := rewriteTiers(t, blobtest.NewMem(), r, enc, keep, dec)
			page := make([]byte, PageSize)
			if err := next.ReadPage(slot, page); err != nil || !bytes.Equal(page, m.pages[slot]) || lost != 1 {
				t.Errorf("slot %d, tier %d: %v, %d lost", slot, tier, err, lost)
			}
			next.Close()
		}
	}
}

// A slot that there is not has a spot that there is not: never that of a page in a cluster.
func TestSpotsOfSlotsBeyond(t *testing.T) {
	_, _, r := coldPack(t, ProfileDefault, 12)
	spots := r.Spots()
	var bad BadSlots
	var span Span
	page := make([]byte, PageSize)
	for slot := uint32(r.Slots()); slot < uint32(spots.Len())+3; slot++ {
		if err := r.ReadPage(slot, page); !IsDamage(err) {
			t.Fatalf("ReadPage of slot %d of %d: %v", slot, r.Slots(), err)
		}
		spot := spots.Of(slot)
		if got := spots.Slot(spot); got != slot {
			t.Errorf("slot %d is at spot %d, which is of slot %d", slot, spot, got)
		}
		if g, ok := spots.GroupOf(spot); ok {
			t.Errorf("slot %d of %d lies in group %d", slot, r.Slots(), g)
		}
		if r.ReadSpots(spot, page, &bad); !IsDamage(bad.Err(spot)) {
			t.Errorf("ReadSpots of slot %d of %d: %v", slot, r.Slots(), bad.Err(spot))
		}
		if err := r.FetchSpots(spot, 1, &span); err != nil {
			t.Fatal(err)
		}
		if span.ReadSpots(spot, page, &bad); !IsDamage(bad.Err(spot)) {
			t.Errorf("ReadSpots of slot %d of %d out of a span: %v", slot, r.Slots(), bad.Err(spot))
		}
	}
}

// A processor that comes while a pack is written again does not stop that.
func TestRewriteWithMoreProcessors(t *testing.T) {
	was := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(was)
	dec, enc := mustDecoder(t), mustEncoder(t, ProfileDefault)
	store := blobtest.NewMem()
	w := mustWriter(t, store, 9, 2)
	rng := rand.New(rand.NewPCG(1, 5))
	hasher := NewHasher(testKey)
	for range 40 {
		var pages [][]byte
		var hashes []Hash
		for range BlockPages {
			page := bytes.Repeat([]byte{byte(rng.Uint32()), byte(rng.Uint32()), 7, 9}, PageSize/4)
			pages, hashes = append(pages, page), append(hashes, hasher.Sum(page))
		}
		var b EncodedBlock
		if err := enc.EncodeBlock(&b, pages); err != nil {
			t.Fatal(err)
		}
		if _, err := w.AppendBlock(&b, hashes); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, store, Name(9, 2), dec)
	next := mustWriter(t, store, 9, 3)
	defer next.Abort()
	ctx := &moreProcessors{Context: t.Context(), n: 32}
	err := Rewrite(ctx, r, next, enc, testKey, Keep{Tier: func(uint32) Tier { return TierCold }})
	if err != nil {
		t.Fatal(err)
	}
}

// moreProcessors is a context that brings processors when others are derived from it.
type moreProcessors struct {
	context.Context
	n int
}

func (c *moreProcessors) Done() <-chan struct{} {
	runtime.GOMAXPROCS(c.n)
	return c.Context.Done()
}

// A pack that is fetched whole is not copied in memory again and again.
func TestFetchAllIsOneBuffer(t *testing.T) {
	dec, enc, store := mustDecoder(t), mustEncoder(t, ProfileDefault), blobtest.NewMem()
	w := mustWriter(t, store, 9, 2)
	rng := rand.New(rand.NewPCG(2, 5))
	page := make([]byte, PageSize)
	for range 256 {
		var pages [][]byte
		for range BlockPages {
			binary.LittleEndian.PutUint64(page[rng.IntN(PageSize-8):], rng.Uint64())
			pages = append(pages, bytes.Clone(page))
		}
		var b EncodedBlock
		b.pages = len(pages)
		for _, p := range pages {
			b.add(codecRaw, 1, p)
		}
		if _, err := w.AppendBlock(&b, make([]Hash, len(pages))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, store, Name(9, 2), dec)
	r.obj = slowObject{r.obj}
	rw := rewriter{r: r, enc: enc}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := rw.fetchAll(); err != nil || rw.all == nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(r.Size())+1<<20; got > most {
		t.Errorf("a pack of %d bytes took %d bytes of memory, want %d at most", r.Size(), got, most)
	}
}
