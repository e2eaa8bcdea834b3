package pack

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
)

// testPage makes a page as they come: text-like, sparse, nearly zero, noise.
func testPage(rng *rand.Rand) []byte {
	p := make([]byte, PageSize)
	switch rng.IntN(8) {
	case 0: // noise: does not compress
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
	case 1: // sparse words
		for range 1 + rng.IntN(60) {
			p[rng.IntN(PageSize)] = byte(rng.Uint32())
		}
	case 2: // literals only: few symbols, no matches
		for i := range p {
			p[i] = "0123456789abcdef"[rng.IntN(16)]
		}
	case 3: // a struct repeated
		n := 8 << rng.IntN(6)
		for i := range p {
			p[i] = byte(i % n)
			if i%n == 0 {
				p[i] = byte(rng.Uint32())
			}
		}
	default: // runs and noise
		for i := 0; i < len(p); {
			c, noise := byte(rng.Uint32()), rng.IntN(4) == 0
			for range min(1+rng.IntN(32), len(p)-i) {
				p[i] = c
				if noise {
					p[i] = byte(rng.Uint32())
				}
				i++
			}
		}
	}
	p[0] |= 1 // never a zero page
	return p
}

// model is what a pack should hold, in the plainest form.
type model struct {
	number     uint64
	generation uint32
	pages      [][]byte // nil: dead
	hashes     []Hash
	blocks     []int // first slot of each
	records    []testRecord
	frames     []testFrame
}

type testRecord struct {
	kind uint32
	data []byte // nil: dropped
}

type testFrame struct {
	gfns  []uint64 // nil: dropped
	pages [][]byte
}

// profileHot stands for NewHotEncoder.
const profileHot Profile = 200

func mustEncoder(t testing.TB, p Profile) *Encoder {
	t.Helper()
	enc, err := NewEncoder(p)
	if p == profileHot {
		enc, err = NewHotEncoder(), nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return enc
}

func mustDecoder(t testing.TB) *Decoder {
	t.Helper()
	dec, err := NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dec.Close)
	return dec
}

func mustWriter(t testing.TB, s blob.Store, number uint64, generation uint32) *Writer {
	t.Helper()
	bw, err := s.Create(context.Background(), Name(number, generation))
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(bw, number, generation)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func mustOpen(t testing.TB, s blob.Store, name string, dec *Decoder) *Reader {
	t.Helper()
	obj, err := s.Open(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(obj, name, dec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

var testKey = HashKey{42}

// fill writes random content into w, which it finishes, and gives the model of it.
func fill(t testing.TB, rng *rand.Rand, w *Writer, enc *Encoder, steps int) *model {
	t.Helper()
	m := &model{number: w.Number(), generation: w.head.generation}
	if enc.tuning.codec == codecLZ4 {
		w.head.version = tierVersion // a record may come first
	}
	hasher := NewHasher(testKey)
	var eb EncodedBlock
	var ef EncodedFrame
	for range steps {
		switch rng.IntN(4) {
		case 0:
			rec := testRecord{kind: rng.Uint32N(5), data: make([]byte, rng.IntN(5000))}
			copy(rec.data, testPage(rng))
			if n, err := w.AppendRecord(rec.kind, rec.data); err != nil || n != len(m.records) {
				t.Fatalf("record %d: %v", n, err)
			}
			m.records = append(m.records, rec)
		case 1:
			var f testFrame
			gfn := rng.Uint64N(1 << 40)
			for range 1 + rng.IntN(40) {
				gfn += 1 + uint64(rng.IntN(3))*rng.Uint64N(3)
				f.gfns = append(f.gfns, gfn)
				f.pages = append(f.pages, testPage(rng))
			}
			ef.Quick = len(m.frames)%2 == 0
			if err := enc.EncodeFrame(&ef, f.gfns, f.pages); err != nil {
				t.Fatal(err)
			}
			if n, err := w.AppendFrame(&ef); err != nil || n != len(m.frames) {
				t.Fatalf("frame %d: %v", n, err)
			}
			m.frames = append(m.frames, f)
		default:
			m.blocks = append(m.blocks, len(m.pages))
			var block [][]byte
			var hashes []Hash
			p := testPage(rng)
			for range 1 + rng.IntN(2*BlockPages) {
				if rng.IntN(3) == 0 {
					p = testPage(rng)
				} else { // like its neighbour
					p = bytes.Clone(p)
					p[rng.IntN(PageSize)]++
				}
				block, hashes = append(block, p), append(hashes, hasher.Sum(p))
			}
			if err := enc.EncodeBlock(&eb, block); err != nil {
				t.Fatal(err)
			}
			if first, err := w.AppendBlock(&eb, hashes); err != nil || int(first) != len(m.pages) {
				t.Fatalf("block at %d: %v", first, err)
			}
			m.pages, m.hashes = append(m.pages, block...), append(m.hashes, hashes...)
		}
	}
	about := w.StoredBytes()
	size, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if size > about+1000 || about > size*11/10+1000 {
		t.Errorf("StoredBytes said %d, the pack has %d bytes", about, size)
	}
	return m
}

// check compares everything that can be read with the model.
func (m *model) check(t testing.TB, r *Reader) {
	t.Helper()
	if r.Number() != m.number || r.Generation() != m.generation {
		t.Errorf("pack %d generation %d", r.Number(), r.Generation())
	}
	if r.Slots() != len(m.pages) || r.Blocks() != len(m.blocks) || r.Records() != len(m.records) ||
		r.Frames() != len(m.frames) {
		t.Fatalf("%d slots, %d blocks, %d records, %d frames; want %d, %d, %d, %d",
			r.Slots(), r.Blocks(), r.Records(), r.Frames(),
			len(m.pages), len(m.blocks), len(m.records), len(m.frames))
	}
	hashes, err := r.Hashes()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m.hashes, hashes); d != "" {
		t.Errorf("hashes: %s", d)
	}
	m.checkPages(t, r)
	for i, rec := range m.records {
		if info := r.Record(i); info.Kind != rec.kind || (info.Stored == 0) != (rec.data == nil) {
			t.Errorf("record %d: %+v", i, info)
		}
		got, err := r.ReadRecord(i, make([]byte, 3))
		if (err != nil) != (rec.data == nil) || !bytes.Equal(got, rec.data) {
			t.Errorf("record %d: %v", i, err)
		}
	}
	var f Frame
	for i, want := range m.frames {
		err := r.ReadFrame(i, &f)
		if want.gfns == nil {
			if err == nil {
				t.Errorf("dropped frame %d can be read", i)
			}
			continue
		}
		if err != nil || !cmp.Equal(f.GFNs, want.gfns) ||
			!bytes.Equal(f.Pages, bytes.Join(want.pages, nil)) {
			t.Errorf("frame %d: %v", i, err)
		}
	}
	bad := func(d Damage) { t.Error(d.Err) }
	if err := r.Verify(context.Background(), testKey, bad, nil); err != nil {
		t.Error(err)
	}
}

func (m *model) checkPages(t testing.TB, r *Reader) {
	t.Helper()
	page := make([]byte, PageSize)
	for i, p := range m.pages {
		err := r.ReadPage(uint32(i), page)
		if r.Dead(uint32(i)) != (p == nil) || (err != nil) != (p == nil) {
			t.Fatalf("slot %d: %v", i, err)
		}
		if p != nil && !bytes.Equal(page, p) {
			t.Fatalf("slot %d has other bytes", i)
		}
	}
	var bad BadSlots
	same := func(first, n int, got []byte) {
		t.Helper()
		for i := range n {
			p, err := m.pages[first+i], bad.Err(uint32(first+i))
			if p == nil && !errors.Is(err, ErrDead) || p != nil && err != nil {
				t.Fatalf("%d slots from %d: slot %d: %v", n, first, first+i, err)
			}
			if p == nil {
				p = make([]byte, PageSize)
			}
			if !bytes.Equal(p, got[i*PageSize:][:PageSize]) {
				t.Fatalf("%d slots from %d: slot %d has other bytes", n, first, first+i)
			}
		}
	}
	for b, first := range m.blocks {
		got, n := r.BlockSlots(b)
		if of, ok := r.BlockOf(got + n - 1); int(got) != first || of != b || !ok {
			t.Fatalf("block %d: slots %d+%d, the last in block %d", b, got, n, of)
		}
		dst := bytes.Repeat([]byte{0xEE}, int(n)*PageSize)
		r.ReadSlots(uint32(first), dst, &bad)
		same(first, int(n), dst)
	}
	rng := rand.New(rand.NewPCG(9, uint64(len(m.pages))))
	for range min(50, len(m.pages)) {
		first := rng.IntN(len(m.pages))
		n := 1 + rng.IntN(len(m.pages)-first)
		// What lies behind dst must not be touched, capacity or not.
		buf := bytes.Repeat([]byte{0xEE}, n*PageSize+100)
		r.ReadSlots(uint32(first), buf[:n*PageSize], &bad)
		same(first, n, buf)
		if !bytes.Equal(buf[n*PageSize:], bytes.Repeat([]byte{0xEE}, 100)) {
			t.Fatal("ReadSlots wrote behind its buffer")
		}
	}
	m.checkSpans(t, r, rng, &bad, same)
	m.checkClusters(t, r)
	m.checkSpots(t, r, rng)
}

// clusterIn says whether a slot lies in the same cluster as one of count slots from first on.
func clusterIn(r *Reader, slot, first, count int) bool {
	c, ok := r.ClusterOf(uint32(slot))
	return ok && slices.ContainsFunc(r.ClusterSlots(c), func(s uint32) bool {
		return int(s) >= first && int(s) < first+count
	})
}

// checkClusters reads each cluster.
func (m *model) checkClusters(t testing.TB, r *Reader) {
	t.Helper()
	var bad BadSlots
	for c := range r.Clusters() {
		slots := r.ClusterSlots(c)
		dst := bytes.Repeat([]byte{0xEE}, len(slots)*PageSize+100)
		if r.ReadCluster(c, dst, &bad); len(bad.Slots()) > 0 {
			t.Fatalf("cluster %d: %v", c, bad.Err(bad.Slots()[0]))
		}
		for i, slot := range slots {
			page := dst[i*PageSize:][:PageSize]
			if of, ok := r.ClusterOf(slot); of != c || !ok || !bytes.Equal(page, m.pages[slot]) {
				t.Fatalf("cluster %d: slot %d has other bytes, or is in cluster %d", c, slot, of)
			}
		}
		if !bytes.Equal(dst[len(slots)*PageSize:], bytes.Repeat([]byte{0xEE}, 100)) {
			t.Fatal("ReadCluster wrote behind its buffer")
		}
	}
}

// checkSpots reads stretches of spots, from the pack and from spans.
func (m *model) checkSpots(t testing.TB, r *Reader, rng *rand.Rand) {
	t.Helper()
	spots := r.Spots()
	if spots.Moved() != (r.Clusters() > 0) {
		t.Fatal("moved?")
	}
	seen := 0
	for g := range spots.Groups() {
		first, n := spots.Group(g)
		for spot := first; spot < first+n; spot++ {
			of, ok := spots.GroupOf(spot)
			if !ok || of != g {
				t.Fatalf("spot %d of group %d is in group %d", spot, g, of)
			}
			if slot := spots.Slot(spot); spots.Of(slot) == spot {
				seen++
				if c, ok := r.ClusterOf(slot); ok != (spot >= uint32(r.Slots())) || ok && c != g-r.Blocks() {
					t.Fatalf("slot %d at spot %d is in cluster %d", slot, spot, c)
				}
			}
		}
	}
	if seen != len(m.pages) {
		t.Fatalf("%d slots have spots, want %d", seen, len(m.pages))
	}
	var bad BadSlots
	var span Span
	for range min(40, len(m.pages)) {
		first := rng.IntN(spots.Len())
		n := 1 + rng.IntN(spots.Len()+2-first)
		if err := r.FetchSpots(uint32(first), n, &span); err != nil {
			t.Fatal(err)
		}
		for _, read := range []func(uint32, []byte, *BadSlots){r.ReadSpots, span.ReadSpots} {
			buf := bytes.Repeat([]byte{0xEE}, n*PageSize+100)
			read(uint32(first), buf[:n*PageSize], &bad)
			for i := range n {
				spot := uint32(first + i)
				slot := spots.Slot(spot)
				want := make([]byte, PageSize)
				there := int(spot) < spots.Len() && spots.Of(slot) == spot && m.pages[slot] != nil
				if there {
					want = m.pages[slot]
				}
				if err := bad.Err(spot); (err == nil) != there || !bytes.Equal(buf[i*PageSize:][:PageSize], want) {
					t.Fatalf("%d spots from %d: spot %d, slot %d: %v", n, first, spot, slot, err)
				}
			}
			if !bytes.Equal(buf[n*PageSize:], bytes.Repeat([]byte{0xEE}, 100)) {
				t.Fatal("ReadSpots wrote behind its buffer")
			}
		}
	}
}

// checkSpans fetches stretches of slots and reads parts of each, in one Span after another.
func (m *model) checkSpans(t testing.TB, r *Reader, rng *rand.Rand, bad *BadSlots,
	same func(first, n int, got []byte)) {
	t.Helper()
	var s Span
	page := make([]byte, PageSize)
	for range min(50, len(m.pages)) {
		first := rng.IntN(len(m.pages))
		count := 1 + rng.IntN(len(m.pages)-first)
		if err := r.Fetch(uint32(first), count, &s); err != nil {
			t.Fatal(err)
		}
		from := first + rng.IntN(count)
		n := 1 + rng.IntN(first+count-from)
		dst := make([]byte, n*PageSize)
		s.ReadSlots(uint32(from), dst, bad)
		same(from, n, dst)
		if err := s.ReadPage(uint32(from), page); (err != nil) != (m.pages[from] == nil) {
			t.Fatalf("slot %d of a span: %v", from, err)
		} else if err == nil && !bytes.Equal(page, m.pages[from]) {
			t.Fatalf("slot %d of a span has other bytes", from)
		}
		for _, slot := range []int{first - 1, first + count} {
			beside := min(max(slot, first), first+count-1)
			if slot < 0 || slot < len(m.pages) && r.dir.slots[slot].off == r.dir.slots[beside].off ||
				clusterIn(r, slot, first, count) {
				continue // in one unit or cluster with something that was fetched
			}
			s.ReadSlots(uint32(slot), page, bad)
			if bad.Err(uint32(slot)) == nil {
				t.Fatalf("slot %d can be read of a span of %d+%d", slot, first, count)
			}
		}
	}
	end := uint32(len(m.pages))
	if err := r.Fetch(end, 1, &s); err != nil {
		t.Fatal(err)
	}
	s.ReadSlots(end, page, bad)
	if bad.Err(end) == nil {
		t.Fatal("a slot behind the last can be read")
	}
}

func TestPack(t *testing.T) {
	dec := mustDecoder(t)
	for _, profile := range []Profile{ProfileDefault, ProfileFast, profileHot} {
		enc := mustEncoder(t, profile)
		for seed := range uint64(12) {
			rng := rand.New(rand.NewPCG(seed, uint64(profile)))
			store := blobtest.NewMem()
			m := fill(t, rng, mustWriter(t, store, 1+seed, uint32(seed)), enc, rng.IntN(40))
			m.check(t, mustOpen(t, store, Name(1+seed, uint32(seed)), dec))
		}
	}
}

// TestRewrite compacts a pack again and again until nothing is left in it.
func TestRewrite(t *testing.T) {
	ctx := context.Background()
	dec := mustDecoder(t)
	for _, profile := range []Profile{ProfileDefault, ProfileFast, profileHot} {
		enc := mustEncoder(t, profile)
		rng := rand.New(rand.NewPCG(5, uint64(profile)))
		store := blobtest.NewMem()
		m := fill(t, rng, mustWriter(t, store, 3, 0), enc, 40)
		before := mustOpen(t, store, Name(3, 0), dec)
		for generation := uint32(1); generation < 8; generation++ {
			for i := range m.pages {
				if rng.IntN(3) == 0 || generation == 7 {
					m.pages[i] = nil
				}
			}
			for i := range m.records {
				if rng.IntN(3) == 0 {
					m.records[i].data = nil
				}
			}
			for i := range m.frames {
				if rng.IntN(3) == 0 {
					m.frames[i].gfns = nil
				}
			}
			m.generation = generation
			w := mustWriter(t, store, 3, generation)
			err := Rewrite(ctx, before, w, enc, testKey, Keep{
				Slot:   func(s uint32) bool { return m.pages[s] != nil },
				Record: func(i int) bool { return m.records[i].data != nil },
				Frame:  func(i int) bool { return m.frames[i].gfns != nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Finish(); err != nil {
				t.Fatal(err)
			}
			after := mustOpen(t, store, Name(3, generation), dec)
			m.check(t, after)
			if after.Size() >= before.Size() {
				t.Errorf("generation %d did not shrink: %d to %d bytes",
					generation, before.Size(), after.Size())
			}
			before = after
		}
	}
}

func TestRewriteKeepsAll(t *testing.T) {
	dec, enc := mustDecoder(t), mustEncoder(t, ProfileDefault)
	store := blobtest.NewMem()
	m := fill(t, rand.New(rand.NewPCG(8, 8)), mustWriter(t, store, 3, 0), enc, 30)
	w := mustWriter(t, store, 3, 1)
	r := mustOpen(t, store, Name(3, 0), dec)
	if err := Rewrite(context.Background(), r, w, enc, testKey, Keep{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	m.generation = 1
	m.check(t, mustOpen(t, store, Name(3, 1), dec))
	other := mustWriter(t, store, 4, 1)
	if err := Rewrite(context.Background(), r, other, enc, testKey, Keep{}); err == nil {
		t.Error("rewrote into a pack of another number")
	}
}

// Pages that are waited for most lie alone in units, however well they compress, and as they are if that
// saves little.
func TestHotUnits(t *testing.T) {
	enc := mustEncoder(t, profileHot)
	rng := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, PageSize)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	text := bytes.Repeat([]byte("sixteen letters "), PageSize/16)
	var eb EncodedBlock
	if err := enc.EncodeBlock(&eb, [][]byte{text, text, noise, text}); err != nil {
		t.Fatal(err)
	}
	want := []codec{codecLZ4, codecLZ4, codecRaw, codecLZ4}
	for i, u := range eb.units {
		if len(eb.units) != 4 || u.pages != 1 || u.codec != want[i] {
			t.Errorf("unit %d of %d: %+v, want codec %d", i, len(eb.units), u, want[i])
		}
	}
}

func TestReadPageDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("with the race detector sync.Pool drops at random what it is given")
	}
	dec := mustDecoder(t)
	for _, profile := range []Profile{ProfileDefault, ProfileFast, profileHot} {
		dir, err := blob.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 1))
		m := fill(t, rng, mustWriter(t, dir, 1, 0), mustEncoder(t, profile), 20)
		r := mustOpen(t, dir, Name(1, 0), dec)
		page, block := make([]byte, PageSize), make([]byte, 2*BlockPages*PageSize)
		slot, bad := uint32(0), BadSlots{}
		if n := testing.AllocsPerRun(500, func() {
			_ = r.ReadPage(slot%uint32(len(m.pages)), page)
			slot++
		}); n != 0 {
			t.Errorf("%v: ReadPage allocates %v times", profile, n)
		}
		if n := testing.AllocsPerRun(50, func() { r.ReadSlots(0, block, &bad) }); n != 0 {
			t.Errorf("%v: ReadSlots allocates %v times", profile, n)
		}
	}
}
