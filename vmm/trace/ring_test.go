package trace

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var testFormat = format{id: 1, gfn: field{8, 8}, level: field{24, 1}}

// record makes a record as the kernel writes it.
func record(kind uint32, body []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(8+len(body)))
	return append(b, body...)
}

func sampleRecord(at time.Duration, gfn uint64, level byte) []byte {
	raw := make([]byte, 28) // with the size before it a multiple of 8
	binary.LittleEndian.PutUint64(raw[8:], gfn)
	raw[24] = level
	b := binary.LittleEndian.AppendUint64(nil, uint64(at))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(raw)))
	return record(unix.PERF_RECORD_SAMPLE, append(b, raw...))
}

func lostRecord(n uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, 1)
	return record(unix.PERF_RECORD_LOST, binary.LittleEndian.AppendUint64(b, n))
}

// fakeRing is the kernel's side of a ring.
type fakeRing struct {
	data       []byte
	head, tail uint64
}

func (f *fakeRing) write(b []byte) bool {
	if f.head+uint64(len(b))-f.tail > uint64(len(f.data)) {
		return false
	}
	for _, c := range b {
		f.data[f.head%uint64(len(f.data))] = c
		f.head++
	}
	return true
}

// TestRing writes samples into a small ring and reads them at random moments: all come back, in
// order, but those for which there was no room, and these are counted.
func TestRing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	r := &ring{vcpu: 3, format: testFormat}
	f := &fakeRing{data: make([]byte, 1024), head: 1<<40 - 100, tail: 1<<40 - 100}
	var want, got []Event
	var dropped, pending, lost uint64
	drain := func() {
		n, err := r.records(f.data, f.tail, f.head, func(e Event) { got = append(got, e) })
		if err != nil {
			t.Fatal(err)
		}
		f.tail, lost = f.head, lost+n
	}
	for i := range 10000 {
		e := Event{GFN: rng.Uint64N(1 << 30), Count: 1, At: time.Duration(i), VCPU: 3}
		if pending > 0 && f.write(lostRecord(pending)) {
			pending = 0
		}
		if pending == 0 && f.write(sampleRecord(e.At, e.GFN, 1)) {
			want = append(want, e)
		} else {
			pending++
			dropped++
		}
		if rng.IntN(12) == 0 {
			drain()
		}
	}
	drain()
	if !slices.Equal(got, want) {
		t.Errorf("read %d events, written %d", len(got), len(want))
	}
	if lost+pending != dropped || dropped == 0 {
		t.Errorf("%d counted as lost and %d to come, of %d", lost, pending, dropped)
	}
}

func TestLargePage(t *testing.T) {
	r := &ring{format: testFormat}
	rec := sampleRecord(5, 0x12345, 2)
	var got Event
	data := make([]byte, 1024)
	copy(data, rec)
	if _, err := r.records(data, 0, uint64(len(rec)), func(e Event) { got = e }); err != nil {
		t.Fatal(err)
	}
	if want := (Event{GFN: 0x12200, Count: 512, At: 5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestBadRecords(t *testing.T) {
	short := record(unix.PERF_RECORD_SAMPLE, make([]byte, 4))
	long := sampleRecord(0, 0, 1)
	binary.LittleEndian.PutUint32(long[16:], 1<<20)
	for name, b := range map[string][]byte{
		"length of zero": make([]byte, 16),
		"short sample":   short,
		"long raw part":  long,
		"level 0":        sampleRecord(0, 0, 0),
		"level 9":        sampleRecord(0, 0, 9),
		"short loss":     record(unix.PERF_RECORD_LOST, make([]byte, 8)),
		"beyond head":    sampleRecord(0, 0, 1)[:24],
	} {
		r := &ring{format: testFormat}
		data := make([]byte, 256)
		copy(data, b)
		if _, err := r.records(data, 0, uint64(len(b)), func(Event) {}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := (&ring{}).records(make([]byte, 64), 0, 65, func(Event) {}); err == nil {
		t.Error("more than the ring holds: no error")
	}
}

func FuzzRing(f *testing.F) {
	f.Add(sampleRecord(1, 2, 1), uint64(0))
	f.Add(append(lostRecord(3), sampleRecord(1, 2, 2)...), uint64(200))
	f.Fuzz(func(t *testing.T, b []byte, tail uint64) {
		ring := &ring{format: testFormat}
		k := &fakeRing{data: make([]byte, 256), head: tail % (1 << 60), tail: tail % (1 << 60)}
		k.write(b[:min(len(b), 256)])
		_, _ = ring.records(k.data, k.tail, k.head, func(e Event) {
			if e.Count == 0 {
				t.Error("an event without pages")
			}
		})
	})
}
