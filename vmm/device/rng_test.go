package device

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"
)

// counted gives bytes that tell where in the source they come from.
type counted struct {
	next byte
	err  error
}

func (c *counted) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	for i := range p {
		c.next++
		p[i] = c.next
	}
	return len(p), nil
}

func TestRNG(t *testing.T) {
	mem, line := newFakeMemory(drvMemory), newFakeLine()
	r := NewRNG(testConfig(t, mem, line), &counted{})
	defer r.Close()
	check(t, r.Resume())
	d := newDriver(t, r, mem, line, 8, 0)
	if d.reg(regDeviceID) != 4 {
		t.Errorf("device %d", d.reg(regDeviceID))
	}
	d.add(d.cut(drvBufs, 64, true, 4))
	d.kick(1)
	all := d.await()
	if len(all) != 1 || all[0].written != 64 {
		t.Errorf("%+v", all)
	}
	for i, b := range mem.get(drvBufs, 64) {
		if b != byte(i+1) {
			t.Fatalf("%x", mem.get(drvBufs, 64))
		}
	}
	// A large request is answered in part, and nothing stays behind in the device.
	d.add([]buf{{drvBufs, rngMax + 1000, true}})
	d.kick(1)
	if all := d.await(); len(all) != 1 || all[0].written != rngMax {
		t.Errorf("%+v", all)
	}
	check(t, r.Drain())
	if !bytes.Equal(r.buffer, make([]byte, rngMax)) {
		t.Error("random bytes are left in the device")
	}
	check(t, r.Resume())
	for name, bufs := range map[string][]buf{
		"to read": {{drvBufs, 64, false}, {drvBufs, 64, true}},
		"nothing": {},
	} {
		d = newDriver(t, r, mem, line, 8, 0)
		if len(bufs) == 0 {
			bufs = []buf{{drvBufs, 0, true}}
		}
		d.add(bufs)
		d.kick(1)
		line.await(t)
		if d.reg(regStatus)&statusNeedsReset == 0 {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Two machines from one state get different bytes, and none from before.
func TestRNGRestored(t *testing.T) {
	mem, line := newFakeMemory(drvMemory), newFakeLine()
	r := NewRNG(testConfig(t, mem, line), rand.Reader)
	check(t, r.Resume())
	d := newDriver(t, r, mem, line, 8, 0)
	draw := func(r *RNG, d *driver) []byte {
		d.add([]buf{{drvBufs, 32, true}})
		d.kick(1)
		d.await()
		return mem.get(drvBufs, 32)
	}
	seen := [][]byte{draw(r, d)}
	check(t, r.Drain())
	s := r.State()
	check(t, r.Close())
	memory := mem.get(0, len(mem.bytes))
	for range 2 {
		mem.put(0, memory)
		again := NewRNG(testConfig(t, mem, line), rand.Reader)
		check(t, again.Restore(s))
		check(t, again.Resume())
		clone := *d
		clone.dev, clone.chains = again, map[uint16][]uint16{}
		clone.free = append([]uint16(nil), d.free...)
		got := draw(again, &clone)
		for _, old := range seen {
			if bytes.Equal(got, old) {
				t.Error("the same random bytes twice")
			}
		}
		seen = append(seen, got)
		check(t, again.Close())
	}
}

// Without random bytes the device asks to be reset, rather than give what is none.
func TestRNGSourceFails(t *testing.T) {
	mem, line := newFakeMemory(drvMemory), newFakeLine()
	r := NewRNG(testConfig(t, mem, line), &counted{err: errInjected})
	defer r.Close()
	check(t, r.Resume())
	d := newDriver(t, r, mem, line, 8, 0)
	d.add([]buf{{drvBufs, 32, true}})
	d.kick(1)
	line.await(t)
	if s := d.reg(regStatus); s&statusNeedsReset == 0 || d.collect() != nil {
		t.Errorf("status %#x", s)
	}
}

func TestGenID(t *testing.T) {
	const addr = 0x2000
	mem, line := newFakeMemory(0x3000), newFakeLine()
	g := NewGenID(mem, addr, line, rand.Reader)
	id := func() string { return string(mem.get(addr, genIDBytes)) }
	none := string(make([]byte, genIDBytes))
	// A new machine gets an ID before it runs, and no notice of it.
	if id() != none {
		t.Error("an ID before the machine is resumed")
	}
	check(t, g.Resume())
	first := id()
	if _, edges := line.get(); first == none || edges != 0 {
		t.Errorf("ID %x, %d interrupts", first, edges)
	}
	check(t, g.Drain())
	check(t, g.Resume())
	if id() != first {
		t.Error("another ID without a restore")
	}
	s := g.State()
	if string(s.ID[:]) != first || s.Addr != addr {
		t.Errorf("%+v", s)
	}
	// Each restored machine gets its own, and one edge.
	ids := map[string]bool{first: true}
	for range 3 {
		line := newFakeLine()
		restored := NewGenID(mem, addr, line, rand.Reader)
		check(t, restored.Restore(s))
		for range 2 {
			check(t, restored.Resume())
			if level, edges := line.get(); level || edges != 1 {
				t.Errorf("line %v after %d edges", level, edges)
			}
		}
		if ids[id()] {
			t.Error("the same ID again")
		}
		ids[id()] = true
		if again := restored.State(); string(again.ID[:]) != id() {
			t.Error("the state has another ID than the guest")
		}
	}
	if n := bytes.Count(mem.bytes, []byte{0}); n < len(mem.bytes)-genIDBytes {
		t.Error("more than the ID is written")
	}
	var bad *StateError
	if err := NewGenID(mem, addr+4096, line, rand.Reader).Restore(s); !errors.As(err, &bad) {
		t.Error(err)
	}
}

// Whatever fails, the next Resume makes good for it.
func TestGenIDFails(t *testing.T) {
	mem, line := newFakeMemory(0x1000), newFakeLine()
	source := &counted{err: io.ErrUnexpectedEOF}
	g := NewGenID(mem, 0, line, source)
	check(t, g.Restore(GenIDState{}))
	if err := g.Resume(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	source.err = nil
	mem.arm(1)
	if err := g.Resume(); !errors.Is(err, errInjected) {
		t.Error(err)
	}
	for n := 1; n <= 2; n++ {
		line.arm(n)
		if err := g.Resume(); !errors.Is(err, errInjected) {
			t.Error(err)
		}
	}
	check(t, g.Resume())
	if level, _ := line.get(); level || mem.bytes[0] == 0 {
		t.Error("no ID, or the line stays asserted")
	}
}
