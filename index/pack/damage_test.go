package pack

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// readAll reads everything in a pack that should hold what m says. What it can read must be right;
// it gives the errors.
func (m *model) readAll(t *testing.T, obj blob.Object, dec *Decoder) (errs []error) {
	t.Helper()
	note := func(err error, what string, right bool) {
		t.Helper()
		if err != nil {
			errs = append(errs, err)
		} else if !right {
			t.Errorf("%s: wrong bytes and no error", what)
		}
	}
	r, err := Open(obj, "test", dec)
	if err != nil {
		return []error{err}
	}
	defer r.Close()
	if r.Slots() != len(m.pages) || r.Records() != len(m.records) || r.Frames() != len(m.frames) {
		t.Fatal("opened with another directory")
	}
	page := make([]byte, PageSize)
	for i, p := range m.pages {
		err := r.ReadPage(uint32(i), page)
		note(err, "page", bytes.Equal(page, p))
	}
	all := make([]byte, len(m.pages)*PageSize)
	var bad BadSlots
	r.ReadSlots(0, all, &bad)
	for i, p := range m.pages {
		note(bad.Err(uint32(i)), "slots", bytes.Equal(all[i*PageSize:][:PageSize], p))
	}
	for i, rec := range m.records {
		got, err := r.ReadRecord(i, nil)
		note(err, "record", bytes.Equal(got, rec.data))
	}
	var f Frame
	for i, want := range m.frames {
		err := r.ReadFrame(i, &f)
		note(err, "frame", bytes.Equal(f.Pages, bytes.Join(want.pages, nil)))
	}
	hashes, err := r.Hashes()
	note(err, "hashes", err != nil || hashes[0] == m.hashes[0])
	err = r.Verify(context.Background(), testKey, func(d Damage) { errs = append(errs, d.Err) }, nil)
	note(err, "verify", true)
	return errs
}

// smallPack makes a small pack with something of everything in it.
func smallPack(t *testing.T, profile Profile) (*model, *blobtest.Mem) {
	t.Helper()
	for seed := uint64(0); ; seed++ {
		store := blobtest.NewMem()
		rng := rand.New(rand.NewPCG(seed, 77))
		m := fill(t, rng, mustWriter(t, store, 9, 2), mustEncoder(t, profile), 6)
		if len(m.pages) > 20 && len(m.pages) < 50 && len(m.records) > 0 && len(m.frames) > 0 {
			return m, store
		}
	}
}

func damagedPack(t *testing.T, profile Profile) (*model, []byte) {
	t.Helper()
	m, store := smallPack(t, profile)
	return m, blobtest.Get(t, store, Name(9, 2))
}

func open(t *testing.T, data []byte) blob.Object {
	t.Helper()
	store := blobtest.NewMem()
	store.Replace("x", data)
	obj, err := store.Open(context.Background(), "x")
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

// checkNoticed checks that a pack which is damaged at off is not taken for a sound one, and that the errors
// are those of damage.
func checkNoticed(t *testing.T, m *model, bad []byte, off int, dec *Decoder) {
	t.Helper()
	errs := m.readAll(t, open(t, bad), dec)
	if len(errs) == 0 {
		t.Errorf("damage at %d of %d went unnoticed", off, len(bad))
	}
	for _, err := range errs {
		var damage *CorruptError
		var version *VersionError
		if !errors.As(err, &damage) && !errors.As(err, &version) {
			t.Errorf("damage at %d: %v", off, err)
		}
	}
}

// TestFlips damages every region of a pack, one bit, one byte or a few bytes at a time: each time
// somebody must notice, and nobody may be given wrong bytes.
func TestFlips(t *testing.T) {
	dec := mustDecoder(t)
	for _, profile := range []Profile{ProfileDefault, ProfileFast, profileHot} {
		m, data := damagedPack(t, profile)
		rng := rand.New(rand.NewPCG(4, 5))
		flip := func(off int, how func([]byte)) {
			t.Helper()
			bad := bytes.Clone(data)
			how(bad[off:])
			if bytes.Equal(bad, data) {
				return
			}
			checkNoticed(t, m, bad, off, dec)
		}
		foot, err := parseFooter(data[len(data)-footerSize:], int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		// Header, directory and footer are small: every byte of them.
		step, bodies := 1, 200
		if raceEnabled {
			step, bodies = 7, 20
		}
		for off := 0; off < len(data); off += step {
			switch {
			case off >= headerSize && off < int(foot.dir.off): // the body: at random, below
				off = int(foot.dir.off) - 1
				continue
			case off >= int(foot.hashes.off) && off < len(data)-footerSize:
				off += 10
			}
			flip(off, func(b []byte) { b[0] ^= 1 << rng.IntN(8) })
		}
		for range bodies {
			off := rng.IntN(int(foot.dir.off))
			flip(off, func(b []byte) { b[0] ^= 1 << rng.IntN(8) })
			flip(off, func(b []byte) { copy(b, make([]byte, 1+rng.IntN(3*PageSize))) })
		}
	}
}

func TestCutOff(t *testing.T) {
	dec := mustDecoder(t)
	m, data := damagedPack(t, ProfileDefault)
	rng := rand.New(rand.NewPCG(4, 5))
	for _, n := range []int{
		0, 1, headerSize, footerSize, headerSize + footerSize, len(data) - 1, len(data) + 1,
	} {
		if len(m.readAll(t, open(t, append(bytes.Clone(data), 0)[:n]), dec)) == 0 {
			t.Errorf("%d of %d bytes pass for the pack", n, len(data))
		}
	}
	for range 50 {
		if n := rng.IntN(len(data)); len(m.readAll(t, open(t, data[:n]), dec)) == 0 {
			t.Errorf("%d of %d bytes pass for the pack", n, len(data))
		}
	}
}

// TestMisplaced gives a reader right bytes in the wrong place: two units of equal size exchanged,
// as a disk or a controller may do with blocks.
func TestMisplaced(t *testing.T) {
	dec, enc := mustDecoder(t), mustEncoder(t, ProfileDefault)
	store := blobtest.NewMem()
	w := mustWriter(t, store, 9, 0)
	rng := rand.New(rand.NewPCG(1, 1))
	noise := func() []byte {
		p := make([]byte, PageSize)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		return p
	}
	var eb EncodedBlock
	if err := enc.EncodeBlock(&eb, [][]byte{noise(), noise()}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.AppendBlock(&eb, make([]Hash, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	data := blobtest.Get(t, store, Name(9, 0))
	const unit = PageSize + crcSize
	swapped := bytes.Clone(data)
	copy(swapped[headerSize:], data[headerSize+unit:][:unit])
	copy(swapped[headerSize+unit:], data[headerSize:][:unit])
	r, err := Open(open(t, swapped), "test", dec)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for slot := range uint32(2) {
		var damage *CorruptError
		if err := r.ReadPage(slot, make([]byte, PageSize)); !errors.As(err, &damage) {
			t.Errorf("slot %d: %v", slot, err)
		}
	}
}

func TestVersion(t *testing.T) {
	_, data := damagedPack(t, ProfileDefault)
	foot, err := parseFooter(data[len(data)-footerSize:], int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	foot.version = tierVersion + 1
	data = foot.append(data[:len(data)-footerSize])
	_, err = Open(open(t, data), "test", mustDecoder(t))
	var version *VersionError
	if !errors.As(err, &version) || version.Got != tierVersion+1 {
		t.Errorf("%v", err)
	}
}

// slotsError reads the slots from first to last and gives what is said of the last.
func slotsError(r *Reader, first, last uint32) error {
	var bad BadSlots
	r.ReadSlots(first, make([]byte, (last-first+1)*PageSize), &bad)
	return bad.Err(last)
}

// TestBeyond asks for what there is not.
func TestBeyond(t *testing.T) {
	m, data := damagedPack(t, ProfileDefault)
	r, err := Open(open(t, data), "test", mustDecoder(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := uint32(len(m.pages))
	page := make([]byte, PageSize)
	_, record := r.ReadRecord(r.Records(), nil)
	for what, err := range map[string]error{
		"slot":   r.ReadPage(n, page),
		"slots":  slotsError(r, n-1, n),
		"frame":  r.ReadFrame(r.Frames(), &Frame{}),
		"record": record,
	} {
		var damage *CorruptError
		if !errors.As(err, &damage) || !strings.Contains(err.Error(), "there are") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, ok := r.BlockOf(n); ok || !r.Dead(n) {
		t.Error("a slot that is not there")
	}
}

// TestWriterFails fails each operation of the blob store in turn: the writer must say so, keep
// saying so, and leave nothing behind.
func TestWriterFails(t *testing.T) {
	enc := mustEncoder(t, ProfileDefault)
	work := func(s blob.Store) error {
		bw, err := s.Create(context.Background(), Name(1, 0))
		if err != nil {
			return err
		}
		w, err := NewWriter(bw, 1, 0)
		if err != nil {
			return err
		}
		defer w.Abort()
		rng := rand.New(rand.NewPCG(2, 2))
		var eb EncodedBlock
		for range 100 {
			block := make([][]byte, 16)
			for i := range block {
				block[i] = testPage(rng)
			}
			if err := enc.EncodeBlock(&eb, block); err != nil {
				return err
			}
			if _, err := w.AppendBlock(&eb, make([]Hash, 16)); err != nil {
				if _, again := w.AppendBlock(&eb, make([]Hash, 16)); !errors.Is(again, err) {
					t.Errorf("failed, then %v", again)
				}
				return err
			}
		}
		_, err = w.Finish()
		return err
	}
	clean := errblob.New(blobtest.NewMem(), nil)
	if err := work(clean); err != nil {
		t.Fatal(err)
	}
	if clean.Operations() < 4 {
		t.Fatalf("only %d operations", clean.Operations())
	}
	for n := 1; n <= clean.Operations(); n++ {
		mem := blobtest.NewMem()
		err := work(errblob.New(mem, errblob.FailNth(n, errblob.ErrInjected)))
		if !errors.Is(err, errblob.ErrInjected) {
			t.Errorf("operation %d failed, the writer says %v", n, err)
		}
		if left, err := mem.List(context.Background(), ""); err != nil || len(left) != 0 {
			t.Errorf("operation %d failed and left %v, %v", n, left, err)
		}
	}
}

// TestReadFails: an I/O error is no corruption, and comes through to errors.Is.
func TestReadFails(t *testing.T) {
	dec := mustDecoder(t)
	_, mem := smallPack(t, ProfileDefault)
	s := errblob.New(mem, nil)
	r := mustOpen(t, s, Name(9, 2), dec)
	s.SetPlan(func(errblob.Call) errblob.Fault { return errblob.Fault{Err: errblob.ErrInjected} })
	_, record := r.ReadRecord(0, nil)
	_, hashes := r.Hashes()
	for what, err := range map[string]error{
		"page":   r.ReadPage(0, make([]byte, PageSize)),
		"slots":  slotsError(r, 0, 1),
		"record": record, "hashes": hashes, "frame": r.ReadFrame(0, &Frame{}),
		"verify": r.Verify(context.Background(), testKey, func(d Damage) { t.Error(d.Err) }, nil),
	} {
		var damage *CorruptError
		if !errors.Is(err, errblob.ErrInjected) || errors.As(err, &damage) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A few bytes of a directory do not make a block, a record or a frame of gigabytes.
func TestDirectoryBounds(t *testing.T) {
	dead := func(pages int) (slots []slotEntry) {
		for i := range pages {
			slots = append(slots, slotEntry{off: headerSize, pos: uint8(maxUnitPages-1)<<4 | uint8(i%maxUnitPages)})
		}
		return slots
	}
	block := []blockEntry{{off: headerSize, end: headerSize}}
	item := func(raw uint32) []itemEntry { return []itemEntry{{codec: codecRaw, raw: raw, off: headerSize}} }
	for what, d := range map[string][2]directory{
		"block":  {{slots: dead(maxBlockPages), blocks: block}, {slots: dead(1 << 20), blocks: block}},
		"record": {{records: item(maxRecord)}, {records: item(maxRecord + 1)}},
		"frame":  {{frames: item(MaxFramePages)}, {frames: item(MaxFramePages + 1)}},
	} {
		for i, d := range d {
			_, err := parseDirectory(d.append(nil), footer{
				slots: uint32(len(d.slots)), blocks: uint32(len(d.blocks)), records: uint32(len(d.records)),
				frames: uint32(len(d.frames)), dir: section{off: 1 << 20},
			})
			if (err != nil) != (i == 1) {
				t.Errorf("%s %d: %v", what, i, err)
			}
		}
	}
}
