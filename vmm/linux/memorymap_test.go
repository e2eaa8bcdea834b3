package linux

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestMemoryMap compares the map with a simple picture of memory, a letter for each KiB.
func TestMemoryMap(t *testing.T) {
	const unit, units = 1024, 8 * mib / 1024
	for range 300 {
		var picture [units]byte
		ram := []Range{{0, mib}}
		for at := uint64(mib / unit); at < units; {
			size := (rand.Uint64N(400) + 1) &^ 3
			gap := rand.Uint64N(3) * 200 &^ 3
			start := (at + gap) &^ 3
			if size == 0 || start+size > units {
				break
			}
			ram = append(ram, Range{start * unit, size * unit})
			at = start + size
		}
		paint := func(r Range, b byte) {
			for i := r.Start / unit; i < r.End()/unit; i++ {
				picture[i] = b
			}
		}
		for _, r := range ram {
			paint(r, 'R')
		}
		paint(Range{0xa_0000, 0x4_0000}, 0)
		for _, r := range []Range{{0x9_fc00, 0x400}, {0xe_0000, 0x2_0000}} {
			paint(r, 'X')
		}
		rand.Shuffle(len(ram), func(i, j int) { ram[i], ram[j] = ram[j], ram[i] })
		m, err := newMemoryMap(ram)
		if err != nil {
			t.Fatalf("%#x: %v", ram, err)
		}
		var got [units]byte
		last := uint64(0)
		for _, e := range m.e820 {
			if e.Start < last || e.Size == 0 {
				t.Fatalf("%#x is not in order", m.e820)
			}
			last = e.End()
			for i := e.Start / unit; i < e.End()/unit; i++ {
				got[i] = map[e820Kind]byte{e820RAM: 'R', e820Reserved: 'X'}[e.kind]
			}
		}
		if got != picture {
			t.Fatalf("RAM %#x: map %#x", ram, m.e820)
		}
		checkHighest(t, m, picture[:])
	}
}

// checkHighest looks for the highest place with the picture.
func checkHighest(t *testing.T, m memoryMap, picture []byte) {
	t.Helper()
	const unit = 1024
	size := rand.Uint64N(64*unit) + 1
	limit := rand.Uint64N(8 * mib)
	kernel := Range{rand.Uint64N(7*mib) &^ (unit - 1), rand.Uint64N(512) * unit}
	free := func(r Range) bool {
		for i := r.Start / unit; i <= (r.End()-1)/unit; i++ {
			if picture[i] != 'R' {
				return false
			}
		}
		return !overlap(r, kernel) && r.Start >= mib && r.End() <= limit
	}
	want, found := Range{}, false
	for start := uint64(8*mib - pageSize); start >= mib && !found; start -= pageSize {
		if r := (Range{start, size}); r.End() <= 8*mib && free(r) {
			want, found = r, true
		}
	}
	if got, ok := m.highest(size, limit, kernel); ok != found || got != want {
		t.Fatalf("%#x bytes below %#x beside %#x: %#x %t, want %#x %t", size, limit, kernel, got, ok,
			want, found)
	}
}

func TestMemoryMapRefusals(t *testing.T) {
	for _, c := range []struct {
		ram  []Range
		want string
	}{
		{nil, "first MiB"},
		{[]Range{{0, mib - pageSize}}, "first MiB"},
		{[]Range{{mib, mib}}, "first MiB"},
		{[]Range{{0, 2*mib + 1}}, "whole pages"},
		{[]Range{{0, 2 * mib}, {4*mib + 1, pageSize}}, "whole pages"},
		{[]Range{{0, 2 * mib}, {mib, 2 * mib}}, "overlap"},
		{[]Range{{0, 2 * mib}, {4 * mib, 0}}, "RAM: 0x0 bytes"},
		{[]Range{{0, 1 << 53}}, "RAM: 0x20000000000000 bytes"},
		{[]Range{{0, 2 * mib}, {^uint64(0) - mib, 2 * mib}}, "RAM"},
	} {
		_, err := newMemoryMap(c.ram)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%#x: %v, want %q", c.ram, err, c.want)
		}
	}
}

// TestTooManyEntries: the zero page has room for 128.
func TestTooManyEntries(t *testing.T) {
	k := &kernel{setup: elfSetup(), cmdlineMax: 10}
	for _, n := range []uint64{125, 126} { // and three of the first MiB
		ram := []Range{{0, mib}}
		for i := range n {
			ram = append(ram, Range{2*mib + i*2*pageSize, pageSize})
		}
		m, err := newMemoryMap(ram)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := zeroPage(k, m, Range{}, Config{}); (err == nil) != (n == 125) {
			t.Errorf("%d entries: %v", len(m.e820), err)
		}
	}
}
