package device

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"
)

// Guests and state files are hostile here. Whatever they contain, a device must not panic, hang, use
// unbounded memory or access addresses outside of RAM (fakeMemory panics then), and must not end the
// machine.

// fuzzMemory is small, so that random addresses are often in it.
const fuzzMemory = 16 << 10

// fuzzDevices are both virtio devices over one memory.
func fuzzDevices(t testing.TB) (*fakeMemory, []workingDevice) {
	mem := newFakeMemory(fuzzMemory)
	config := testConfig(t, mem, newFakeLine())
	return mem, []workingDevice{NewBlock(config, newFakeStorage(64<<10).disk()),
		NewRNG(config, rand.Reader)}
}

// workingDevice is a virtio device as a machine uses it.
type workingDevice interface {
	Handler
	Worker
	Close() error
	idle()
}

// idle waits until the device has served its kicks. Overlapping rings may keep it busy for ever, which
// is allowed as long as the device can be drained.
func (v *virtio) idle() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for range 100 {
		if !v.busy && v.kicked() == nil {
			return
		}
		v.cond.Wait()
	}
}

func set32(t *testing.T, h Handler, off uint64, v uint32) {
	t.Helper()
	check(t, h.Write(off, le.AppendUint32(nil, v)))
}

// FuzzQueue gives a device a queue at any place with any contents.
func FuzzQueue(f *testing.F) {
	d := func(list ...desc) (b []byte) {
		for _, d := range list {
			b = append(b, d.bytes()...)
		}
		return b
	}
	header := blockHeaderBytes(blockOut, 1)
	ring := []byte{0, 0, 1, 0, 0, 0}
	request := append(d(desc{0x400, 16, descNext, 1}, desc{0x400, 512, descNext, 2},
		desc{0x700, 1, descWrite, 0}), make([]byte, 16*5)...)
	// The table at 0, the available ring at 0x80, the used ring at 0x100, the buffers at 0x400.
	good := append(append(request, ring...), make([]byte, 0x400-len(request)-len(ring))...)
	add := func(contents []byte, desc, avail, used uint64, size uint32, index uint16,
		features uint32) {
		f.Add(contents, desc, avail, used, size, index, features)
	}
	add(append(good, header...), 0, 0x80, 0x100, 8, 1, 3)
	add(append(good, blockHeaderBytes(blockIn, ^uint64(0))...), 0, 0x80, 0x100, 8, 8, 3)
	add(d(desc{0, 64, descIndirect, 0}, desc{0, 16, descNext | descWrite, 1}), 0, 0x80, 0x100, 4, 1, 3)
	add(d(desc{0, 16, descNext, 0}), 0, 0, 0, 256, 256, 1)
	add(nil, ^uint64(0)-15, 1<<63, 4, 1<<16, 0xffff, 0)
	f.Fuzz(func(t *testing.T, contents []byte, descAt, avail, used uint64, size uint32, index uint16,
		features uint32) {
		mem, devices := fuzzDevices(t)
		for _, h := range devices {
			clear(mem.bytes)
			copy(mem.bytes, contents)
			if at := avail + 2; at < fuzzMemory-2 {
				mem.put16(at, index)
			}
			check(t, h.Resume())
			set32(t, h, regStatus, 3)
			set32(t, h, regDriverFeatures, features&3<<28|features&^3&(blockFeatureFlush))
			set32(t, h, regDriverFeaturesSel, 1)
			set32(t, h, regDriverFeatures, 1)
			set32(t, h, regStatus, 11)
			set32(t, h, regQueueNum, size)
			for i, at := range []uint64{descAt, avail, used} {
				set32(t, h, regQueueDescLow+uint64(i)*16, uint32(at))
				set32(t, h, regQueueDescHigh+uint64(i)*16, uint32(at>>32))
			}
			set32(t, h, regQueueReady, 1)
			set32(t, h, regStatus, 15)
			for range 3 {
				set32(t, h, regQueueNotify, 0)
				h.idle()
				check(t, h.Drain())
				check(t, h.Resume())
			}
			set32(t, h, regStatus, 0)
			check(t, h.Close())
		}
		if mem.longest > blockBuffer {
			t.Errorf("an access of %d bytes", mem.longest)
		}
	})
}

// FuzzRegisters makes any accesses to the registers of any device. Each is of four bytes of the
// input: which device, what and how wide, the offset, the value.
func FuzzRegisters(f *testing.F) {
	f.Add([]byte("\x00\x01\x70\x03\x00\x01\x24\x01\x00\x01\x20\x01\x00\x01\x70\x0b\x00\x01\x38\x08" +
		"\x00\x01\x44\x01\x00\x01\x70\x0f\x00\x01\x50\x00\x00\x01\x70\x00"))
	f.Add([]byte("\x02\x05\x01\x0f\x02\x05\x04\x10\x02\x05\x00\x41\x02\x04\x02\x00\x02\x04\x00\x00"))
	f.Add([]byte("\x03\x05\x04\xd2\x03\x05\x00\x55\x03\x04\x00\x00\x03\x05\x04\xfe\x04\x05\x00\x34"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		var w bytes.Buffer
		_, devices := fuzzDevices(t)
		serial := NewSerial(newFakeLine(), &w, quiet)
		handlers := []Handler{devices[0], devices[1], serial, NewI8042(), NewPower()}
		for _, d := range devices {
			check(t, d.Resume())
		}
		check(t, serial.Resume())
		for ; len(ops) >= 4; ops = ops[4:] {
			h := handlers[int(ops[0])%len(handlers)]
			size := 1 << (ops[1] >> 1 & 3)
			if ops[1]&8 == 0 && int(ops[0])%len(handlers) < 2 {
				size = 4
			}
			off, p := uint64(ops[2]), make([]byte, size)
			if ops[1]&16 != 0 {
				off += regConfig
			}
			p[0] = ops[3]
			var err error
			if ops[1]&1 == 0 {
				err = h.Read(off, p)
			} else {
				err = h.Write(off, p)
			}
			if err != nil && !errors.Is(err, ErrReset) && !errors.Is(err, ErrPowerOff) {
				t.Errorf("offset %#x: %v", off, err)
			}
			if ops[1]&32 != 0 {
				_, err := serial.Feed(ops[:4])
				check(t, err)
			}
		}
		for _, d := range devices {
			d.idle()
			check(t, d.Drain())
			check(t, d.Close())
		}
		check(t, serial.Close())
	})
}

// FuzzRestore gives devices any state. One that is accepted must be kept as it is, and the device
// must then be as good as any.
func FuzzRestore(f *testing.F) {
	_, devices := fuzzDevices(f)
	block := devices[0].(*Block)
	serial := NewSerial(newFakeLine(), new(bytes.Buffer), quiet)
	for i, s := range []any{block.State(), devices[1].(*RNG).State(), serial.State(),
		NewI8042().State(), NewPower().State()} {
		raw, err := binary.Append(nil, le, s)
		check(f, err)
		f.Add(uint8(i), raw)
	}
	s := block.State()
	s.Transport = TransportState{DriverFeatures: featureVersion1 | featureIndirect, Status: 15}
	s.Queue[0] = QueueState{Avail: 0x80, Used: 0x100, Size: 8, Ready: 1, LastAvail: 3, LastUsed: 3}
	raw, err := binary.Append(nil, le, s)
	check(f, err)
	f.Add(uint8(0), raw)
	for _, d := range devices {
		check(f, d.Close())
	}
	check(f, serial.Close())
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		var w bytes.Buffer
		mem, devices := fuzzDevices(t)
		serial := NewSerial(newFakeLine(), &w, quiet)
		set := NewSet()
		var tag string
		var h Handler
		var err error
		switch which % 5 {
		case 0:
			b := devices[0].(*Block)
			h, tag, err = b, b.Tag(), Add(set, b)
		case 1:
			r := devices[1].(*RNG)
			h, tag, err = r, r.Tag(), Add(set, r)
		case 2:
			h, tag, err = serial, serial.Tag(), Add(set, serial)
		case 3:
			k := NewI8042()
			h, tag, err = k, k.Tag(), Add(set, k)
		case 4:
			p := NewPower()
			h, tag, err = p, p.Tag(), Add(set, p)
		}
		check(t, err)
		if err := set.Restore([]Section{{tag, 0, raw}}); err == nil {
			sections, err := set.States()
			check(t, err)
			if !bytes.Equal(sections[0].Data, raw) {
				t.Errorf("%x became %x", raw, sections[0].Data)
			}
			copy(mem.bytes[:], raw)
			check(t, set.Resume())
			for off := range uint64(8) {
				p := make([]byte, 1)
				check(t, h.Read(off, p))
			}
			check(t, h.Write(regQueueNotify, make([]byte, 4)))
			check(t, set.Drain())
		} else if bad := new(StateError); !errors.As(err, &bad) {
			t.Errorf("refused: %v", err)
		}
		for _, d := range devices {
			d.idle()
			check(t, d.Close())
		}
		check(t, serial.Close())
	})
}
