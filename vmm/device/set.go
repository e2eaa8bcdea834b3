package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Section is the state of one device, as a state file holds it.
type Section struct {
	Tag   string // what kind of device, up to 8 ASCII characters
	Index uint32 // which of its kind
	Data  []byte
}

// Device is what a Set asks of its members. S is a struct of fixed width.
type Device[S any] interface {
	Tag() string
	State() S
	// Restore sets the state. It verifies it: a state comes out of a file.
	Restore(S) error
}

// Worker is a device with work of its own, or with an interrupt line.
type Worker interface {
	// Drain returns when nothing is in work, and nothing is until Resume.
	Drain() error
	Resume() error
}

// Place is a range of a bus.
type Place struct {
	Bus        *Bus
	Base, Size uint64
}

// Set has the devices of a machine, in the order in which they were added. It is made before the
// machine runs; from then on its methods follow one after the other.
type Set struct {
	members []member
	drained bool
}

// member is a device of which the Set no longer knows the kind.
type member struct {
	tag    string
	index  uint32
	device any
	save   func() ([]byte, error)
	// decode reads a state, so that load only has to set it.
	decode func([]byte) (load func() error, err error)
}

// NewSet makes an empty set. Its machine does not run yet, so it begins drained.
func NewSet() *Set { return &Set{drained: true} }

// Add takes a device over and puts it at some places of the buses; one that cannot be put there is
// closed. It is a function and not a method of Set for the sake of its type parameter.
func Add[S any](s *Set, d Device[S], places ...Place) (err error) {
	defer func() {
		if c, ok := any(d).(io.Closer); ok && err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	m := member{tag: d.Tag(), device: d}
	if len(m.tag) == 0 || len(m.tag) > 8 || binary.Size(*new(S)) <= 0 {
		return fmt.Errorf("device %q with a state of type %T", m.tag, *new(S))
	}
	for _, other := range s.members {
		if other.tag == m.tag {
			m.index++
		}
	}
	m.save = func() ([]byte, error) { return binary.Append(nil, le, d.State()) }
	m.decode = func(data []byte) (func() error, error) {
		var state S
		if len(data) != binary.Size(state) {
			return nil, badState("%s %d has %d bytes, expected %d", m.tag, m.index, len(data),
				binary.Size(state))
		}
		_, err := binary.Decode(data, le, &state)
		return func() error { return d.Restore(state) }, err
	}
	for _, p := range places {
		h, ok := any(d).(Handler)
		if !ok {
			return fmt.Errorf("device %s has no registers", m.tag)
		}
		if err := p.Bus.Add(p.Base, p.Size, h); err != nil {
			return fmt.Errorf("device %s: %w", m.tag, err)
		}
	}
	s.members = append(s.members, m)
	return nil
}

// Drain makes every device finish what it is at. The vCPUs must be paused. After an error Resume
// lets the machine go on.
func (s *Set) Drain() error {
	s.drained = true
	return s.workers("drain", Worker.Drain)
}

// Resume lets the devices work. The state of the interrupt controllers must be set before, for the
// devices now put their lines to the level that they should have.
func (s *Set) Resume() error {
	s.drained = false
	return s.workers("resume", Worker.Resume)
}

func (s *Set) workers(what string, do func(Worker) error) error {
	var errs []error
	for _, m := range s.members {
		w, ok := m.device.(Worker)
		if !ok {
			continue
		}
		if err := do(w); err != nil {
			errs = append(errs, fmt.Errorf("%s %s %d: %w", what, m.tag, m.index, err))
		}
	}
	return errors.Join(errs...)
}

// Close ends the work of all devices, in the reverse order, and releases what they hold. No vCPU
// may be left.
func (s *Set) Close() error {
	var errs []error
	for _, m := range slices.Backward(s.members) {
		if c, ok := m.device.(io.Closer); ok {
			if err := c.Close(); err != nil {
				errs = append(errs, fmt.Errorf("close %s %d: %w", m.tag, m.index, err))
			}
		}
	}
	s.members = nil
	return errors.Join(errs...)
}

var errNotDrained = errors.New("the devices are not drained")

// States returns the state of all devices, which must be drained. It does not look at guest memory,
// and nothing that it calls raises an interrupt.
func (s *Set) States() ([]Section, error) {
	if !s.drained {
		return nil, errNotDrained
	}
	var sections []Section
	for _, m := range s.members {
		data, err := m.save()
		if err != nil {
			return nil, fmt.Errorf("state of %s %d: %w", m.tag, m.index, err)
		}
		sections = append(sections, Section{m.tag, m.index, data})
	}
	return sections, nil
}

// Restore sets the states of all devices. There must be one section for each, and none besides;
// that is verified before anything is set. After an error the devices are only good for Close.
func (s *Set) Restore(sections []Section) error {
	if !s.drained {
		return errNotDrained
	}
	loads := make([]func() error, len(s.members))
	for _, sec := range sections {
		i := slices.IndexFunc(s.members, func(m member) bool {
			return m.tag == sec.Tag && m.index == sec.Index
		})
		if i < 0 {
			return badState("this machine has no %s %d", sec.Tag, sec.Index)
		}
		if loads[i] != nil {
			return badState("%s %d is there twice", sec.Tag, sec.Index)
		}
		var err error
		if loads[i], err = s.members[i].decode(sec.Data); err != nil {
			return err
		}
	}
	for i, m := range s.members {
		if loads[i] == nil {
			return badState("there is no %s %d", m.tag, m.index)
		}
	}
	for i, m := range s.members {
		if err := loads[i](); err != nil {
			return fmt.Errorf("restore %s %d: %w", m.tag, m.index, err)
		}
	}
	return nil
}
