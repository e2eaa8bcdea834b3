package vmm

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

func out(t *testing.T, p *ports, port uint16, v uint32) error {
	t.Helper()
	return p.Write(uint64(port-portBase), binary.LittleEndian.AppendUint32(nil, v))
}

func TestPortReport(t *testing.T) {
	p := newPorts(time.Now)
	for _, w := range []uint32{7, 0, 8, 0, 0x11, 0x22, 0x33, 0x44, 5, 0} {
		if err := out(t, p, portWord, w); err != nil {
			t.Fatal(err)
		}
	}
	var wrong *WrongByteError
	err := out(t, p, portFail, 5)
	want := WrongByteError{GFN: 7, Offset: 8, Expected: 0x22_0000_0011, Found: 0x44_0000_0033,
		Version: 5}
	if !errors.As(err, &wrong) || *wrong != want {
		t.Errorf("%v", err)
	}
}

func TestPortRefusals(t *testing.T) {
	p := newPorts(time.Now)
	if err := out(t, p, portPace+1, 1); err == nil {
		t.Error("a port where nothing is took a word")
	}
	if err := out(t, p, portFail, 5); err == nil || errors.As(err, new(*WrongByteError)) {
		t.Errorf("a report of no words: %v", err)
	}
	if err := p.Write(portWord-portBase, make([]byte, 1)); err == nil {
		t.Error("a byte was taken")
	}
	if err := p.Read(portPace-portBase, make([]byte, 2)); err == nil {
		t.Error("two bytes were given")
	}
	for range 100 { // more words than a report has
		if err := out(t, p, portWord, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := out(t, p, portDone, 0); !errors.As(err, &guestDone{}) {
		t.Errorf("done: %v", err)
	}
}

// Pace, on the test's clock: a guest that is late skips periods and does not try to catch up.
func TestPace(t *testing.T) {
	now := time.Unix(1000, 0)
	p := newPorts(func() time.Time { return now })
	if err := out(t, p, portPace, 10_000); err != nil {
		t.Fatal(err)
	}
	in := func() uint32 {
		data := make([]byte, 4)
		if err := p.Read(portPace-portBase, data); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint32(data)
	}
	if in() != 1 {
		t.Error("the first period does not begin at once")
	}
	p.hold()
	p.hold()
	for range 2 {
		if in() != 0 {
			t.Error("a wait was not cut short")
		}
	}
	p.release()
	waiting := make(chan uint32)
	go func() { waiting <- in() }()
	p.hold() // before or after the wait has begun
	if <-waiting != 0 {
		t.Error("a wait was not cut short")
	}
	now = now.Add(35 * time.Millisecond)
	if in() != 1 {
		t.Error("a late guest waits")
	}
	if in() != 1 || in() != 0 {
		t.Error("a late guest is to get one period now and no more")
	}
}
