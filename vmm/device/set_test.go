package device

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// recorder is a device that keeps a record of what is done with it.
type recorder struct {
	echo
	name   string
	record *[]string
	state  uint32
	fail   string // what fails
}

func (r *recorder) do(what string) error {
	*r.record = append(*r.record, what+" "+r.name)
	if r.fail == what {
		return errInjected
	}
	return nil
}

func (r *recorder) Tag() string            { return "REC" }
func (r *recorder) State() uint32          { return r.state }
func (r *recorder) Restore(s uint32) error { r.state = s; return r.do("restore") }
func (r *recorder) Drain() error           { return r.do("drain") }
func (r *recorder) Resume() error          { return r.do("resume") }
func (r *recorder) Close() error           { return r.do("close") }

func recorders(t *testing.T, n int) (*Set, []*recorder, *[]string) {
	t.Helper()
	s, record, bus := NewSet(), new([]string), NewBus("port")
	var all []*recorder
	for i := range n {
		r := &recorder{name: fmt.Sprint(i), record: record, state: uint32(i), echo: echo{id: byte(i + 1)}}
		check(t, Add(s, r, Place{bus, uint64(16 * i), 8}, Place{bus, uint64(16*i + 8), 2}))
		all = append(all, r)
	}
	for i := range n {
		p := make([]byte, 1)
		if found, err := bus.Read(uint64(16*i+9), p); !found || err != nil || int(p[0]) != i+1 {
			t.Errorf("device %d is not at its second place: %v, %v", i, found, err)
		}
	}
	return s, all, record
}

func TestSetOrder(t *testing.T) {
	s, all, record := recorders(t, 3)
	sections, err := s.States()
	check(t, err)
	for i, sec := range sections {
		if sec.Tag != "REC" || sec.Index != uint32(i) ||
			!bytes.Equal(sec.Data, []byte{byte(i), 0, 0, 0}) {
			t.Errorf("%+v", sec)
		}
	}
	slices.Reverse(sections) // their order does not matter
	sections[0].Data[0] = 9
	check(t, s.Restore(sections))
	check(t, s.Resume())
	if _, err := s.States(); err == nil {
		t.Error("the state of a running machine")
	}
	if s.Restore(sections) == nil {
		t.Error("the state of a running machine can be set")
	}
	check(t, s.Drain())
	check(t, s.Close())
	if all[2].state != 9 {
		t.Errorf("state %d", all[2].state)
	}
	want := "restore 0,restore 1,restore 2,resume 0,resume 1,resume 2,drain 0,drain 1,drain 2," +
		"close 2,close 1,close 0"
	if got := strings.Join(*record, ","); got != want {
		t.Error(got)
	}
}

// Whatever fails, the others are not left out, and the error says who it was.
func TestSetErrors(t *testing.T) {
	for _, what := range []string{"drain", "resume", "close", "restore"} {
		s, all, record := recorders(t, 3)
		all[1].fail = what
		sections, err := s.States()
		check(t, err)
		switch what {
		case "drain":
			err = s.Drain()
		case "resume":
			err = s.Resume()
		case "close":
			err = s.Close()
		case "restore":
			err = s.Restore(sections)
		}
		if !errors.Is(err, errInjected) || !strings.Contains(err.Error(), what+" REC 1") {
			t.Errorf("%s: %v", what, err)
		}
		if n := len(*record); n != 3 && what != "restore" {
			t.Errorf("%s: %v", what, *record)
		}
	}
}

func TestSetRefusesSections(t *testing.T) {
	s, all, record := recorders(t, 2)
	good, err := s.States()
	check(t, err)
	for name, sections := range map[string][]Section{
		"none":    nil,
		"missing": good[:1],
		"twice":   {good[0], good[1], good[0]},
		"index":   {good[0], good[1], {"REC", 2, good[0].Data}},
		"tag":     {good[0], good[1], {"OTHER", 0, good[0].Data}},
		"short":   {good[0], {"REC", 1, good[1].Data[:3]}},
		"long":    {good[0], {"REC", 1, append(bytes.Clone(good[1].Data), 0)}},
	} {
		var bad *StateError
		if err := s.Restore(sections); !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(*record) != 0 {
		t.Errorf("something was done: %v", *record)
	}
	check(t, s.Restore(good))
	if len(all) != 2 {
		t.Errorf("%d sections", len(all))
	}
}

// odd is a device that cannot be added.
type odd[S any] struct{ tag string }

func (o odd[S]) Tag() string     { return o.tag }
func (o odd[S]) State() (s S)    { return s }
func (o odd[S]) Restore(S) error { return nil }

func TestSetRefusesDevices(t *testing.T) {
	s, bus := NewSet(), NewBus("port")
	for name, err := range map[string]error{
		"long tag":     Add(s, odd[uint32]{"NINECHARS"}),
		"no tag":       Add(s, odd[uint32]{""}),
		"slice":        Add(s, odd[[]byte]{"X"}),
		"int":          Add(s, odd[int]{"X"}),
		"no registers": Add(s, odd[uint32]{"X"}, Place{bus, 0, 1}),
	} {
		if err == nil {
			t.Errorf("%s: added", name)
		}
	}
	check(t, Add(s, NewPower(), Place{bus, 0x600, PowerSize}))
	if Add(s, NewI8042(), Place{bus, 0x602, I8042Size}) == nil {
		t.Error("two devices at one place")
	}
	if sections, err := s.States(); err != nil || len(sections) != 1 {
		t.Errorf("%d devices, %v", len(sections), err)
	}
}

// A machine with all devices is saved and made again; the sections have the sizes that the format
// of the state file promises, and no two tags are the same.
func TestSetOfAMachine(t *testing.T) {
	mem := newFakeMemory(drvMemory)
	build := func() *Set {
		s, ports, mmio := NewSet(), NewBus("port"), NewBus("address")
		var w bytes.Buffer
		config := testConfig(t, mem, newFakeLine())
		check(t, Add(s, NewSerial(newFakeLine(), &w, quiet), Place{ports, 0x3f8, SerialSize}))
		check(t, Add(s, NewI8042(), Place{ports, 0x60, I8042Size}))
		check(t, Add(s, NewPower(), Place{ports, 0x600, PowerSize}))
		check(t, Add(s, NewGenID(mem, 0xe0000, newFakeLine(), rand.Reader)))
		for i := range uint64(2) {
			check(t, Add(s, NewBlock(config, newFakeStorage(4096).disk()),
				Place{mmio, 0xd000_0000 + i*VirtioSize, VirtioSize}))
		}
		check(t, Add(s, NewRNG(config, rand.Reader), Place{mmio, 0xd000_2000, VirtioSize}))
		return s
	}
	s := build()
	check(t, s.Resume())
	check(t, s.Drain())
	sections, err := s.States()
	check(t, err)
	check(t, s.Close())
	var got []string
	for _, sec := range sections {
		got = append(got, fmt.Sprintf("%s %d %d", sec.Tag, sec.Index, len(sec.Data)))
	}
	want := []string{"SERIAL 0 1054", "I8042 0 5", "ACPIPWR 0 1", "VMGENID 0 24", "VIRTBLK 0 100",
		"VIRTBLK 1 100", "VIRTRNG 0 63"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	s = build()
	check(t, s.Restore(sections))
	again, err := s.States()
	check(t, err)
	for i := range again {
		if !bytes.Equal(again[i].Data, sections[i].Data) {
			t.Errorf("%s %d is another after a restore", again[i].Tag, again[i].Index)
		}
	}
	check(t, s.Resume())
	check(t, s.Close())
}
