package device

import (
	"errors"
	"math/rand/v2"
	"testing"
)

// The keyboard controller as Linux probes it: every answer is there at once.
func TestI8042Probe(t *testing.T) {
	k := NewI8042()
	status := func() byte {
		var p [1]byte
		check(t, k.Read(i8042Command, p[:]))
		if p[0]&2 != 0 {
			t.Error("the input buffer is full")
		}
		return p[0]
	}
	ask := func(command byte, params ...byte) byte {
		t.Helper()
		check(t, k.Write(i8042Command, []byte{command}))
		for _, p := range params {
			if status()&i8042StatusCommand == 0 {
				t.Errorf("command %#x takes no parameter", command)
			}
			check(t, k.Write(i8042Data, []byte{p}))
		}
		if status()&i8042StatusFull == 0 {
			t.Fatalf("command %#x has no answer", command)
		}
		var p [1]byte
		check(t, k.Read(i8042Data, p[:]))
		if status()&i8042StatusFull != 0 {
			t.Errorf("the answer of %#x is still there", command)
		}
		return p[0]
	}
	if s := status(); s != i8042StatusSystem|i8042StatusUnlocked {
		t.Errorf("status %#x", s)
	}
	control := ask(i8042ReadControl)
	for _, c := range []struct {
		command byte
		params  []byte
		want    byte
	}{
		{i8042SelfTest, nil, 0x55},
		{i8042TestKeyboard, nil, 0},
		{i8042TestAux, nil, 1},
		{i8042EchoAux, []byte{0x5a}, 0x5a},
		{i8042EchoKbd, []byte{0xa5}, 0xa5},
		{i8042ReadOutput, nil, 3},
		{i8042ReadControl, nil, control},
	} {
		if got := ask(c.command, c.params...); got != c.want {
			t.Errorf("command %#x: %#x, expected %#x", c.command, got, c.want)
		}
	}
	for _, c := range []struct{ command, want byte }{
		{i8042EnableKbd, control &^ i8042ControlKbdOff},
		{i8042EnableAux, control &^ (i8042ControlKbdOff | i8042ControlAuxOff)},
		{i8042DisableAux, control &^ i8042ControlKbdOff},
		{i8042DisableKbd, control},
		{0xc0, control}, // unknown
	} {
		check(t, k.Write(i8042Command, []byte{c.command}))
		if got := ask(i8042ReadControl); got != c.want {
			t.Errorf("control %#x after %#x, expected %#x", got, c.command, c.want)
		}
	}
	check(t, k.Write(i8042Command, []byte{i8042WriteControl}))
	check(t, k.Write(i8042Data, []byte{0x47}))
	if got := ask(i8042ReadControl); got != 0x47 {
		t.Errorf("control %#x", got)
	}
	// A keyboard that is not there does not answer.
	check(t, k.Write(i8042Data, []byte{0xf2}))
	check(t, k.Write(i8042Command, []byte{i8042SendAux}))
	check(t, k.Write(i8042Data, []byte{0xf2}))
	if status()&i8042StatusFull != 0 {
		t.Error("an answer out of nothing")
	}
	var p [1]byte
	check(t, k.Read(1, p[:]))
	check(t, k.Write(1, []byte{0xfe}))
	if p[0] != 0xff {
		t.Errorf("port 0x61 reads %#x", p[0])
	}
}

func TestI8042Reset(t *testing.T) {
	for command := range 256 {
		k := NewI8042()
		err := k.Write(i8042Command, []byte{byte(command)})
		if want := command >= 0xf0 && command&1 == 0; errors.Is(err, ErrReset) != want {
			t.Errorf("command %#x: %v", command, err)
		}
	}
	k := NewI8042()
	check(t, k.Write(i8042Command, []byte{i8042WriteOutput}))
	check(t, k.Write(i8042Data, []byte{0xdf}))
	check(t, k.Write(i8042Command, []byte{i8042WriteOutput}))
	if err := k.Write(i8042Data, []byte{0xfe}); !errors.Is(err, ErrReset) {
		t.Error(err)
	}
}

func TestPower(t *testing.T) {
	for _, c := range []struct {
		off  uint64
		v    byte
		want error
	}{
		{PowerControl, SleepTypeS5<<2 | 1<<5, ErrPowerOff},
		{PowerControl, SleepTypeS5<<2 | 1<<5 | 0xc3, ErrPowerOff}, // bits that mean nothing
		{PowerControl, SleepTypeS5 << 2, nil},                     // not enabled
		{PowerControl, 3<<2 | 1<<5, nil},                          // no such sleep
		{PowerControl, 1 << 5, nil},
		{PowerStatus, 0x80, nil}, // as Linux clears it
		{PowerReset, ResetValue, ErrReset},
		{PowerReset, 0, nil},
		{PowerReset, 6, nil},
	} {
		w := NewPower()
		if err := w.Write(c.off, []byte{c.v}); !errors.Is(err, c.want) {
			t.Errorf("%#x to register %d: %v", c.v, c.off, err)
		}
		want := byte(0)
		if c.off == PowerControl {
			want = c.v & 0x1c
		}
		for off, want := range []byte{want, 0, 0} {
			p := []byte{0xee}
			check(t, w.Read(uint64(off), p))
			if p[0] != want {
				t.Errorf("register %d reads %#x after %#x to %d", off, p[0], c.v, c.off)
			}
		}
	}
	check(t, NewPower().Write(PowerControl, []byte{0x34, 0}))
}

// Nothing that a guest does can tell whether these were saved and restored meanwhile.
func TestSmallRestoreIsInvisible(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	power, other := NewPower(), NewPower()
	keys, others := NewI8042(), NewI8042()
	for step := range 20000 {
		off, v := r.Uint64N(I8042Size), byte(r.Uint32())
		if r.IntN(50) == 0 {
			s, s2 := other.State(), others.State()
			other, others = NewPower(), NewI8042()
			check(t, errors.Join(other.Restore(s), others.Restore(s2)))
		}
		for _, pair := range [][2]Handler{{power, other}, {keys, others}} {
			var x, y [1]byte
			var err, err2 error
			if r.IntN(2) == 0 {
				err, err2 = pair[0].Read(off, x[:]), pair[1].Read(off, y[:])
			} else {
				x[0], y[0] = v, v
				err, err2 = pair[0].Write(off, x[:]), pair[1].Write(off, y[:])
			}
			if x != y || !errors.Is(err, err2) {
				t.Fatalf("step %d: offset %d: %x and %x, %v and %v", step, off, x, y, err, err2)
			}
		}
	}
}

func TestSmallBadState(t *testing.T) {
	k, w := NewI8042(), NewPower()
	for name, err := range map[string]error{
		"command": k.Restore(I8042State{Output: 1, Command: 1}),
		"full":    k.Restore(I8042State{Output: 1, Full: 2}),
		"output":  k.Restore(I8042State{}),
		"control": w.Restore(PowerState{Control: 0x20}),
	} {
		var bad *StateError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
