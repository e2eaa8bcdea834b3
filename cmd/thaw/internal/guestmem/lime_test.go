package guestmem

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

// writeLime writes a LiME dump of a machine.
func writeLime(m *machine) []byte {
	var b bytes.Buffer
	for _, s := range m.ranges {
		_ = binary.Write(&b, binary.LittleEndian, []uint32{limeMagic, 1})
		_ = binary.Write(&b, binary.LittleEndian, []uint64{uint64(s.at), uint64(s.at + s.n - 1), 0})
		b.Write(m.part(s))
	}
	return b.Bytes()
}

func TestLime(t *testing.T) {
	m := small(1)
	s, _ := bothWays(t, writeLime(m), m.bytes)
	if s.Reading == "" || s.Format != "lime" || len(s.Regions) != 3 {
		t.Errorf("%+v", s)
	}
	// Two ranges in one page.
	m = newMachine(2, 0x4000, span{0, 0x1400}, span{0x1800, 0x1000}, span{0x3000, 0x800})
	bothWays(t, writeLime(m), m.bytes)
}

func TestLimeRefused(t *testing.T) {
	m := small(3)
	second := limeHeader + int(m.ranges[0].n)
	u64 := binary.LittleEndian.PutUint64
	for name, c := range map[string]struct {
		change func([]byte) []byte
		words  string
	}{
		"version":        {func(b []byte) []byte { b[4] = 2; return b }, "version 2"},
		"cut in header":  {func(b []byte) []byte { return b[:second+20] }, "cut short"},
		"cut in memory":  {func(b []byte) []byte { return b[:len(b)-1] }, "cut short"},
		"second magic":   {func(b []byte) []byte { b[second] ^= 1; return b }, "range 1"},
		"backwards":      {func(b []byte) []byte { u64(b[8:], 1<<30); return b }, "from 0x40000000"},
		"too large":      {func(b []byte) []byte { u64(b[16:], 1<<60); return b }, "range 0"},
		"whole space":    {func(b []byte) []byte { u64(b[8:], 0); u64(b[16:], 1<<64-1); return b }, "range 0"},
		"overlap":        {func(b []byte) []byte { u64(b[second+8:], 0x2000); return b }, "overlap"},
		"ends in middle": {func(b []byte) []byte { u64(b[16:], 0x8fffff); return b }, "cut short"},
	} {
		refusedBothWays(t, name, c.change(writeLime(m)), c.words)
	}
}

// limeOfMany is a dump of ranges of one byte, in every second page.
type limeOfMany struct{ n, left int }

func (l *limeOfMany) Read(p []byte) (int, error) {
	if l.left == 0 {
		return 0, io.EOF
	}
	at := uint64(l.n) * 2 * PageSize
	l.n, l.left = l.n+1, l.left-1
	b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(p[:0], limeMagic), 1)
	b = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, at), at)
	return len(append(b, make([]byte, 9)...)), nil
}

// TestLimeManyRanges: a compressed file may have billions, and each takes memory here.
func TestLimeManyRanges(t *testing.T) {
	for n, refused := range map[int]bool{maxSegments: false, maxSegments + 1: true} {
		in := newStreamInput("stream", &limeOfMany{left: n})
		list := walkLime(in, nowhere{})
		if (in.err != nil) != refused || !refused && len(list) != n {
			t.Errorf("%d ranges: %d are known, %v", n, len(list), in.err)
		}
	}
}

// nowhere passes memory over.
type nowhere struct{}

func (nowhere) data(in *input, _, n int64) { in.skip(n) }
func (nowhere) zero(*input, int64, int64)  {}

func FuzzLime(f *testing.F) {
	f.Add(writeLime(newMachine(4, 0x4000, span{0x800, 0x400}, span{0x3000, 0x1000})))
	f.Add(writeLime(newMachine(5, 0x4000, span{0, 0x1400}, span{0x1800, 0x1000}, span{0x3000, 0x800})))
	f.Fuzz(agree)
}

// TestLimeManyParts: pages that come in parts are kept until the end of a stream, but not any number.
func TestLimeManyParts(t *testing.T) {
	var list []span
	for i := range int64(maxParts + 1) {
		list = append(list, span{i * PageSize, 100})
	}
	m := newMachine(6, (maxParts+1)*PageSize, list...)
	s := mustOpen(t, writeFile(t, "dump", writeLime(m)), Options{})
	got, err := contents(s.Memory)
	sameImage(t, "file", got, err, m.bytes)
	m.ranges = list[:maxParts]
	bothWays(t, writeLime(m), m.bytes[:maxParts*PageSize])
	m.ranges = list
	st, err := OpenStream("stream", bytes.NewReader(writeLime(m)), false)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = streamed(st.Stream)
	refusal(t, "many parts", err, "4096")
}
