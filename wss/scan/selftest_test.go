package scan

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func oneProcess(t *testing.T, seed uint64) (*machine, *testOS) {
	m := newMachine(t, seed, low, high)
	return m, newOS(m, osOptions{levels: 4, processes: 1, userPages: 50})
}

const shortTest = 50 * time.Millisecond

func TestFlushIsChosen(t *testing.T) {
	m, _ := oneProcess(t, 1)
	broken := Flush{Name: "broken", Do: func() error { return errors.New("no such thing") }}
	m.flushes = []Flush{m.idle("none"), broken, m.works("right"), m.works("expensive")}
	m.flushes[2].Refault = 70 * time.Nanosecond
	src := newTables(t, m, TableOptions{TestTime: shortTest})
	s, err := src.Sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if src.flush.Name != "right" || s.Refault != 70*time.Nanosecond {
		t.Errorf("flush %q, refault %v", src.flush.Name, s.Refault)
	}
	if s.Paused < time.Duration(m.pauses)*m.pause {
		t.Errorf("paused for %v, %d times", s.Paused, m.pauses)
	}
}

// A way that only brings back the bit of the page that is executed, as it seems, is not taken.
func TestFlushOfOnePage(t *testing.T) {
	m, _ := oneProcess(t, 1)
	interprets := Flush{Name: "interprets", Do: func() error {
		delete(m.cpus[0].tlb, m.cpus[0].rip>>frameShift)
		return nil
	}}
	m.flushes = []Flush{interprets, m.works("right")}
	src := newTables(t, m, TableOptions{TestTime: shortTest})
	if _, err := src.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if src.flush.Name != "right" {
		t.Errorf("flush %q", src.flush.Name)
	}
}

func TestNoBits(t *testing.T) {
	m, _ := oneProcess(t, 1)
	broken := Flush{Name: "broken", Do: func() error { return errors.New("no such thing") }}
	m.flushes = []Flush{m.idle("a"), broken, m.idle("b")}
	_, err := newTables(t, m, TableOptions{TestTime: shortTest}).Sweep(t.Context())
	var none *NoBitsError
	if !errors.Is(err, ErrNoBits) || !errors.As(err, &none) {
		t.Fatalf("error %v", err)
	}
	if d := cmp.Diff(&NoBitsError{Tried: []string{"a", "broken: no such thing", "b"}}, none); d != "" {
		t.Error(d)
	}
	if m.running != 0 {
		t.Error("the guest was left paused")
	}
}

func TestHaltedShowsNothing(t *testing.T) {
	m, _ := oneProcess(t, 1)
	m.cpus[0].halted = true
	_, err := newTables(t, m, TableOptions{TestTime: shortTest}).Sweep(t.Context())
	var none *NoBitsError
	if !errors.As(err, &none) || !none.Halted {
		t.Fatalf("error %v", err)
	}
	// One that wakes up in time shows enough.
	woken := 0
	m.work = func(time.Duration) {
		if woken++; woken%int(2*shortTest/step) == 0 {
			m.touch(m.cpus[0], m.cpus[0].rip)
		}
	}
	if _, err := newTables(t, m, TableOptions{TestTime: shortTest}).Sweep(t.Context()); err != nil {
		t.Error(err)
	}
}

// A way that stops working after a while is noticed; another one takes over if there is one.
func TestBitsStayAwayLater(t *testing.T) {
	for _, other := range []bool{false, true} {
		m, _ := oneProcess(t, 1)
		works := true
		right := m.works("").Do
		m.flushes = []Flush{{Name: "tires", Do: func() error {
			if works {
				return right()
			}
			return nil
		}}}
		if other {
			m.flushes = append(m.flushes, m.works("other"))
		}
		src := newTables(t, m, TableOptions{TestTime: shortTest})
		var err error
		for i := range 10 {
			works = i < 4
			if _, err = src.Sweep(t.Context()); err != nil {
				break
			}
			m.Sleep(t.Context(), 5*time.Millisecond)
		}
		switch {
		case other && (err != nil || src.flush.Name != "other"):
			t.Errorf("error %v, flush %v", err, src.flush)
		case !other && !errors.Is(err, ErrNoBits):
			t.Errorf("error %v", err)
		}
	}
}

func TestNoTables(t *testing.T) {
	m, _ := oneProcess(t, 1)
	m.cpus[0].root = 1 << 19 // in the hole
	_, err := newTables(t, m, TableOptions{}).Sweep(t.Context())
	if !errors.Is(err, ErrNoTables) || m.running != 0 {
		t.Errorf("error %v, running %d", err, m.running)
	}
}

// failing is a guest whose nth call of a kind fails.
type failing struct {
	*machine
	call string
	left int
}

var errGuest = errors.New("the guest is gone")

func (f *failing) fails(call string) bool {
	if call != f.call {
		return false
	}
	f.left--
	return f.left < 0
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.fails("read") {
		return 0, errGuest
	}
	return f.machine.ReadAt(p, off)
}

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if f.fails("write") {
		return 0, errGuest
	}
	return f.machine.WriteAt(p, off)
}

func (f *failing) Pause(ctx context.Context) error {
	if f.fails("pause") {
		return errGuest
	}
	return f.machine.Pause(ctx)
}

func (f *failing) CPUs() ([]CPU, error) {
	if f.fails("registers") {
		return nil, errGuest
	}
	return f.machine.CPUs()
}

func (f *failing) Resume() error {
	err := f.machine.Resume()
	if f.fails("resume") {
		return errGuest
	}
	return err
}

// Whatever fails, whenever: the error comes out and the guest is not left standing.
func TestGuestFails(t *testing.T) {
	for _, call := range []string{"read", "write", "pause", "registers", "resume"} {
		failed := 0
		for left := 0; ; left += 1 + left/3 {
			m, _ := oneProcess(t, 1)
			f := &failing{machine: m, call: call, left: left}
			src, err := NewTables(f, TableOptions{TestTime: shortTest, Clock: m})
			for i := 0; i < 3 && err == nil; i++ {
				_, err = src.Sweep(t.Context())
			}
			if m.running != 0 {
				t.Errorf("%s fails after %d: the guest is left paused", call, left)
			}
			if err == nil {
				break
			}
			if failed++; !errors.Is(err, errGuest) {
				t.Errorf("%s fails after %d: error %v", call, left, err)
			}
		}
		if failed < 3 {
			t.Errorf("%s failed only %d times", call, failed)
		}
	}
}

func TestCancelled(t *testing.T) {
	m, _ := oneProcess(t, 1)
	m.flushes = []Flush{m.idle("none")}
	ctx, cancel := context.WithCancel(t.Context())
	m.work = func(time.Duration) { cancel() }
	_, err := newTables(t, m, TableOptions{}).Sweep(ctx)
	if !errors.Is(err, context.Canceled) || m.running != 0 {
		t.Errorf("error %v, running %d", err, m.running)
	}
}

// Each pause costs the guest something: two for the test of a way that works, one for the sweep.
func TestFirstSweepPausesLittle(t *testing.T) {
	m, _ := oneProcess(t, 1)
	src := newTables(t, m, TableOptions{TestTime: shortTest})
	for _, want := range []int{3, 4, 5} {
		if _, err := src.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m.pauses != want {
			t.Errorf("%d pauses, want %d", m.pauses, want)
		}
		m.Sleep(t.Context(), step)
	}
}
