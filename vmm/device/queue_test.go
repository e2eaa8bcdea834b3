package device

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// bareQueue is a queue without a device, at the places of the test driver.
func bareQueue(size uint16) (*queue, *fakeMemory) {
	mem := newFakeMemory(drvBufs)
	q := &queue{ram: mem.ram(), indirect: true, eventIdx: true}
	q.state = QueueState{Desc: drvDesc, Avail: drvAvail, Used: drvUsed, Size: size, Ready: 1}
	return q, mem
}

// desc is a descriptor as a hostile guest writes it.
type desc struct {
	addr        uint64
	size        uint32
	flags, next uint16
}

func (d desc) bytes() []byte {
	p := le.AppendUint32(le.AppendUint64(nil, d.addr), d.size)
	return le.AppendUint16(le.AppendUint16(p, d.flags), d.next)
}

func TestChain(t *testing.T) {
	const n, w, i = descNext, descWrite, descIndirect
	const top = drvBufs // first address that is not RAM
	tests := []struct {
		name     string
		table    []desc
		indirect []desc // at drvTables
		head     uint16
		in, out  uint64 // bytes
		bad      string // part of the error
		without  bool   // indirect descriptors are not negotiated
	}{
		{name: "one", table: []desc{{0x8000, 16, 0, 99}}, in: 16},
		{name: "both", table: []desc{{0x8000, 16, n, 1}, {0x9000, 100, n | w, 2}, {0x9800, 1, w, 0}},
			in: 16, out: 101},
		{name: "at the end of RAM", table: []desc{{top - 16, 16, 0, 0}}, in: 16},
		{name: "nothing", table: []desc{{0x8000, 0, 0, 0}}},
		{name: "nothing anywhere", table: []desc{{^uint64(0), 0, w, 0}}},
		{name: "over the end of RAM", table: []desc{{top - 15, 16, 0, 0}}, bad: "not in RAM"},
		{name: "behind RAM", table: []desc{{top, 1, 0, 0}}, bad: "not in RAM"},
		{name: "around 2^64", table: []desc{{^uint64(0), 2, 0, 0}}, bad: "not in RAM"},
		{name: "4 GiB", table: []desc{{0, ^uint32(0), w, 0}}, bad: "not in RAM"},
		{name: "circle of one", table: []desc{{0x8000, 16, n, 0}}, bad: "more than 8"},
		{name: "circle", table: []desc{{0x8000, 16, n, 1}, {0x8000, 1, n, 0}}, bad: "more than 8"},
		{name: "head", head: 8, bad: "descriptor 8 of a table of 8"},
		{name: "next", table: []desc{{0x8000, 16, n, 8}}, bad: "descriptor 8"},
		{name: "order", table: []desc{{0x8000, 1, n | w, 1}, {0x8000, 1, 0, 0}}, bad: "one to write"},

		{name: "table", table: []desc{{drvTables, 32, i, 0}},
			indirect: []desc{{0x8000, 16, n, 1}, {0x9000, 7, w, 0}}, in: 16, out: 7},
		{name: "table after others", table: []desc{{0x8000, 5, n, 1}, {drvTables, 16, i | w, 0}},
			indirect: []desc{{0x9000, 7, w, 0}}, in: 5, out: 7},
		{name: "table not negotiated", table: []desc{{drvTables, 32, i, 0}}, without: true,
			bad: "not negotiated"},
		{name: "table in a table", table: []desc{{drvTables, 16, i, 0}},
			indirect: []desc{{drvTables, 16, i, 0}}, bad: "in an indirect table"},
		{name: "chain after a table", table: []desc{{drvTables, 16, i | n, 1}}, bad: "in an indirect table"},
		{name: "no table", table: []desc{{drvTables, 0, i, 0}}, bad: "table of 0"},
		{name: "part of a table", table: []desc{{drvTables, 17, i, 0}}, bad: "table of 17"},
		{name: "table behind RAM", table: []desc{{top - 16, 32, i, 0}}, bad: "not in RAM"},
		{name: "next in a table", table: []desc{{drvTables, 16, i, 0}},
			indirect: []desc{{0x8000, 16, n, 1}}, bad: "descriptor 1 of a table of 1"},
		{name: "circle in a table", table: []desc{{drvTables, 16, i, 0}},
			indirect: []desc{{0x8000, 16, n, 0}}, bad: "more than 8"},
		{name: "huge table", table: []desc{{0, 0xffff_fff0, i, 0}}, bad: "not in RAM"},
	}
	for _, c := range tests {
		q, mem := bareQueue(8)
		q.indirect = !c.without
		for i, d := range c.table {
			mem.put(drvDesc+uint64(i)*descSize, d.bytes())
		}
		for i, d := range c.indirect {
			mem.put(drvTables+uint64(i)*descSize, d.bytes())
		}
		mem.put16(drvAvail+4, c.head)
		mem.put16(drvAvail+2, 1)
		chain, err := q.pop()
		var reset *resetError
		if c.bad != "" {
			if !errors.As(err, &reset) || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if err != nil || chain.in.size != c.in || chain.out.size != c.out {
			t.Errorf("%s: %+v, %v", c.name, chain, err)
		}
		if most := 3 + 8 + 2; mem.calls > most {
			t.Errorf("%s: %d accesses to memory, expected %d at most", c.name, mem.calls, most)
		}
	}
}

func TestQueueCheck(t *testing.T) {
	const top = drvBufs
	good := QueueState{Desc: drvDesc, Avail: drvAvail, Used: drvUsed, Size: 8}
	for name, change := range map[string]func(*QueueState){
		"size 0":           func(s *QueueState) { s.Size = 0 },
		"size 3":           func(s *QueueState) { s.Size = 3 },
		"size 512":         func(s *QueueState) { s.Size = 512 },
		"desc unaligned":   func(s *QueueState) { s.Desc += 8 },
		"avail unaligned":  func(s *QueueState) { s.Avail++ },
		"used unaligned":   func(s *QueueState) { s.Used += 2 },
		"desc over end":    func(s *QueueState) { s.Desc = top - 8*16 + 16 },
		"avail over end":   func(s *QueueState) { s.Avail = top - 4 - 16 },
		"used over end":    func(s *QueueState) { s.Used = top - 4 - 64 },
		"avail beyond":     func(s *QueueState) { s.Avail = 1 << 40 },
		"used around 2^64": func(s *QueueState) { s.Used = ^uint64(3) },
	} {
		q, _ := bareQueue(8)
		q.state = good
		check(t, q.check())
		change(&q.state)
		if q.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Too many chains at once cannot be.
func TestAvailIndex(t *testing.T) {
	q, mem := bareQueue(8)
	q.state.LastAvail, q.state.LastUsed = 0xfffc, 0xfffc
	for index, ok := range map[uint16]bool{0xfffc: true, 0xfffd: true, 3: true, 4: true, 5: false,
		0xfffb: false} {
		q.state.LastAvail = 0xfffc
		mem.put16(drvAvail+2, index)
		c, err := q.pop()
		if (err == nil) != ok || (c == nil) != (index == 0xfffc || !ok) {
			t.Errorf("index %#x: %v, %v", index, c, err)
		}
	}
}

// The kernel copies two bytes one after the other, and the guest writes them at once, in between.
// The queue must see no chain that is not there.
func TestTornAvailIndex(t *testing.T) {
	for _, size := range []uint16{8, 256} {
		q, mem := bareQueue(size)
		q.state.LastAvail, q.state.LastUsed = 0xff, 0xff
		mem.put16(drvAvail+2, 0xff)
		mem.put(drvDesc, desc{0x8000, 16, 0, 0}.bytes())
		torn := false
		mem.onRead = func(p []byte, addr int64) bool {
			if addr != drvAvail+2 || torn {
				return false
			}
			torn = true
			p[0] = mem.bytes[addr]
			le.PutUint16(mem.bytes[addr:], 0x100)
			p[1] = mem.bytes[addr+1]
			return true
		}
		for want := 1; want >= 0; want-- {
			c, err := q.pop()
			if err != nil || (c != nil) != (want == 1) {
				t.Fatalf("size %d: %v, %v, expected %d chains", size, c, err, want)
			}
		}
	}
}

// An index that never stops changing must not hold the device for ever.
func TestRestlessAvailIndex(t *testing.T) {
	q, mem := bareQueue(8)
	mem.onRead = func(p []byte, addr int64) bool {
		mem.bytes[drvAvail+2]++
		return false
	}
	var reset *resetError
	if _, err := q.pop(); !errors.As(err, &reset) {
		t.Error(err)
	}
}

// The device's index is written so that the kernel copies it by one instruction, and nothing that
// is not the device's is written with it.
func TestUsedIndexIsWrittenAtOnce(t *testing.T) {
	for _, used := range []uint64{drvUsed, drvUsed + 4} {
		q, mem := bareQueue(8)
		q.state.Used = used
		q.state.LastAvail, q.state.LastUsed = 0xff, 0xff
		mem.put(used-8, bytes.Repeat([]byte{0xee}, 8))
		var widths []int
		mem.onWrite = func(p []byte, addr int64) {
			if addr <= int64(used)+2 && addr+int64(len(p)) > int64(used)+2 {
				widths = append(widths, len(p))
				if addr != int64(used) {
					t.Errorf("the index is written from %#x on", addr)
				}
			}
		}
		for i := range uint16(20) {
			check(t, q.push(i, 7))
		}
		if mem.get16(used+2) != 0xff+20 || q.state.LastUsed != 0xff+20 {
			t.Errorf("index %#x", mem.get16(used+2))
		}
		want := 8
		if used%8 != 0 {
			want = 4
		}
		for _, n := range widths {
			if n != want {
				t.Errorf("the index at %#x is written with %d bytes, expected %d", used+2, n, want)
			}
		}
		for i := range uint64(8) { // the entries of the last eight pushes are whole
			slot := mem.get(used+4+8*((0xff+12+i)%8), 8)
			if le.Uint32(slot) != uint32(12+i) || le.Uint32(slot[4:]) != 7 {
				t.Errorf("entry %d: %x", i, slot)
			}
		}
		if !bytes.Equal(mem.get(used-8, 8), bytes.Repeat([]byte{0xee}, 8)) {
			t.Error("bytes before the ring have changed")
		}
	}
}

// A chain that comes just before the driver is asked to tell is not overlooked: the driver has then
// not been asked yet.
func TestRearm(t *testing.T) {
	q, mem := bareQueue(8)
	event := int64(drvUsed + 4 + 8*8)
	for range uint16(3) {
		if more, err := q.rearm(); more || err != nil || mem.get16(uint64(event)) != q.state.LastAvail {
			t.Errorf("%v, %v, event %d", more, err, mem.get16(uint64(event)))
		}
		mem.onWrite = func(_ []byte, addr int64) {
			if addr == event {
				le.PutUint16(mem.bytes[drvAvail+2:], q.state.LastAvail+1)
			}
		}
		if more, err := q.rearm(); !more || err != nil {
			t.Errorf("overlooked: %v, %v", more, err)
		}
		mem.onWrite = nil
		q.state.LastAvail++
	}
	q.eventIdx = false
	mem.put16(drvAvail+2, q.state.LastAvail+1)
	if more, err := q.rearm(); more || err != nil {
		t.Errorf("a driver that always tells: %v, %v", more, err)
	}
}

func TestInterruptSuppression(t *testing.T) {
	q, mem := bareQueue(8)
	q.state.LastUsed = 0xffff
	for _, c := range []struct {
		eventIdx     bool
		flags, event uint16
		want         bool
	}{
		{false, 0, 0, true},
		{false, 1, 0, false},
		{false, 2, 0, true},
		{true, 1, 0, true}, // the index of the chain just given back
		{true, 0, 1, false},
		{true, 0, 0xffff, false},
	} {
		q.eventIdx = c.eventIdx
		q.state.LastUsed = 0
		check(t, q.push(0, 0))
		mem.put16(drvAvail, c.flags)
		mem.put16(drvAvail+4+2*8, c.event)
		if got, err := q.wantsInterrupt(); err != nil || got != c.want {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

// A stream gives the same bytes however it is cut and however it is taken.
func TestStream(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		mem := newFakeMemory(1 << 12)
		for i := range mem.bytes {
			mem.bytes[i] = byte(r.Uint32())
		}
		s := stream{ram: mem.ram()}
		var want []byte
		for range r.IntN(6) {
			seg := segment{r.Uint64N(4000), 1 + r.Uint32N(90)}
			s.segs = append(s.segs, seg)
			s.size += uint64(seg.size)
			want = append(want, mem.bytes[seg.addr:][:seg.size]...)
		}
		if len(want) > 0 && r.IntN(2) == 0 {
			last := s.cutLast()
			p := make([]byte, 1)
			check(t, last.read(p))
			if p[0] != want[len(want)-1] || last.read(p) == nil {
				t.Fatal("the last byte is another")
			}
			want = want[:len(want)-1]
		}
		var got []byte
		for s.size > 0 {
			p := make([]byte, 1+r.Uint64N(s.size))
			check(t, s.read(p))
			got = append(got, p...)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%x, expected %x", got, want)
		}
		if len(s.segs) != 0 || s.read(make([]byte, 1)) == nil {
			t.Fatal("more than there is")
		}
	}
}
