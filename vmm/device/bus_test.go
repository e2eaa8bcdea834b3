package device

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// echo answers reads with its number and remembers the last access.
type echo struct {
	id   byte
	off  uint64
	data []byte
	err  error
}

func (e *echo) Read(off uint64, p []byte) error {
	e.off = off
	for i := range p {
		p[i] = e.id
	}
	return e.err
}

func (e *echo) Write(off uint64, p []byte) error {
	e.off, e.data = off, bytes.Clone(p)
	return e.err
}

func TestBus(t *testing.T) {
	b := NewBus("ports")
	serial, rtc := &echo{id: 1}, &echo{id: 2}
	for _, r := range []struct {
		base, size uint64
		h          Handler
		ok         bool
	}{
		{0x3f8, 8, serial, true},
		{0x70, 2, rtc, true},
		{0x3f8, 8, rtc, false},
		{0x3f0, 9, rtc, false},
		{0x3ff, 1, rtc, false},
		{0x3fa, 1, rtc, false},
		{0x0, 1 << 16, rtc, false},
		{0x100, 0, rtc, false},
		{^uint64(0), 2, rtc, false},
		{0x3f0, 8, rtc, true},
		{0x400, 1, rtc, true},
		{^uint64(0), 1, rtc, true},
	} {
		if err := b.Add(r.base, r.size, r.h); (err == nil) != r.ok {
			t.Errorf("add %#x..: %v", r.base, err)
		}
	}
	for _, a := range []struct {
		addr uint64
		size int
		id   byte // 0: nobody
		off  uint64
	}{
		{0x3f8, 1, 1, 0},
		{0x3ff, 1, 1, 7},
		{0x3fc, 4, 1, 4},
		{0x3fd, 4, 0, 0}, // across the end, though a range follows
		{0x70, 2, 2, 0},
		{0x72, 1, 0, 0},
		{0x6f, 1, 0, 0},
		{0, 1, 0, 0},
		{^uint64(0), 1, 2, 0},
		{^uint64(0), 2, 0, 0},
		{0x401, 1, 0, 0},
	} {
		p := bytes.Repeat([]byte{0xee}, a.size)
		found, err := b.Read(a.addr, p)
		want := a.id
		if a.id == 0 {
			want = 0xee
		}
		if err != nil || found != (a.id != 0) || p[0] != want || p[a.size-1] != want {
			t.Errorf("read %d of %#x: %v %v %x", a.size, a.addr, found, err, p)
		}
		if a.id == 1 && serial.off != a.off {
			t.Errorf("read of %#x: offset %#x", a.addr, serial.off)
		}
	}
	if found, err := b.Write(0x3f9, []byte{7}); !found || err != nil || serial.off != 1 ||
		!bytes.Equal(serial.data, []byte{7}) {
		t.Errorf("write: %v %v %+v", found, err, serial)
	}
	if found, err := b.Write(0x80, []byte{7}); found || err != nil {
		t.Errorf("write where nothing is: %v %v", found, err)
	}
}

func TestBusPassesErrorsOn(t *testing.T) {
	b := NewBus("ports")
	if err := b.Add(0x600, 1, &echo{err: ErrPowerOff}); err != nil {
		t.Fatal(err)
	}
	if found, err := b.Write(0x600, []byte{0}); !found || !errors.Is(err, ErrPowerOff) {
		t.Errorf("%v %v", found, err)
	}
	if found, err := b.Read(0x600, []byte{0}); !found || !errors.Is(err, ErrPowerOff) {
		t.Errorf("%v %v", found, err)
	}
}

// Random ranges against a table of one entry for each address.
func TestBusAgainstATable(t *testing.T) {
	const space = 256
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		b, owner := NewBus("x"), [space]*echo{}
		base := [space]uint64{}
		for id := range 30 {
			from, size := r.Uint64N(space), 1+r.Uint64N(40)
			e, free := &echo{id: byte(id + 1)}, from+size <= space
			for a := from; a < min(from+size, space); a++ {
				free = free && owner[a] == nil
			}
			if from+size > space {
				continue
			}
			if err := b.Add(from, size, e); (err == nil) != free {
				t.Fatalf("add %d+%d: %v, free %v", from, size, err, free)
			}
			for a := from; free && a < from+size; a++ {
				owner[a], base[a] = e, from
			}
		}
		for range 200 {
			addr, size := r.Uint64N(space), uint64(1)<<r.Uint64N(4)
			want := owner[addr]
			for a := addr; a < addr+size; a++ {
				if a >= space || owner[a] != want {
					want = nil
					break
				}
			}
			p := make([]byte, size)
			found, err := b.Read(addr, p)
			if err != nil || found != (want != nil) {
				t.Fatalf("%d bytes at %d: %v %v", size, addr, found, err)
			}
			if found && (p[0] != want.id || want.off != addr-base[addr]) {
				t.Fatalf("%d bytes at %d: device %d at %d", size, addr, p[0], want.off)
			}
		}
	}
}
