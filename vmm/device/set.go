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

// Device is a member of a Set. S, its state, is a struct of fixed-width fields.
type Device[S any] interface {
	Tag() string
	State() S
	// Restore verifies and sets the state, which comes from a file.
	Restore(S) error
}

// Worker is a device that works by itself, or has an interrupt line.
type Worker interface {
	// Drain returns when the current work is done. No work is started before Resume.
	Drain() error
	Resume() error
}

// Place is a range of a bus.
type Place struct {
	Bus        *Bus
	Base, Size uint64
}

// Set has the devices of a machine, in the order in which they were added. All are added before the
// machine runs. Its methods must not be called concurrently.
type Set struct {
	members []member
	drained bool
}

// member is a device without its type.
type member struct {
	tag    string
	index  uint32
	device any
	save   func() ([]byte, error)
	// decode decodes a state; load then sets it.
	decode func([]byte) (load func() error, err error)
}

// NewSet makes an empty set, which is drained.
func NewSet() *Set { return &Set{drained: true} }

// Add adds a device to the set, which owns it then, and to the buses at the given places. If that
// fails, the device is closed. It is a function, not a method, because it has a type parameter.
func Add[S any](s *Set, d Device[S], places ...Place) (err error) {
	defer func() {
		if c, ok := any(d).(io.Closer); ok && err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	m := member{tag: d.Tag(), device: d}
	if len(m.tag) == 0 || len(m.tag) > 8 || binary.Size(*new(S)) <= 0 {
		return fmt.Errorf("device %q: a state of type %T cannot be saved", m.tag, *new(S))
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
			return nil, badState("the state of %s %d has %d bytes, and must have %d", m.tag, m.index, len(data),
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

// Drain makes every device finish its current work. The vCPUs must be paused. Even after an error,
// Resume lets the machine continue.
func (s *Set) Drain() error {
	s.drained = true
	return s.workers("drain", Worker.Drain)
}

// Resume lets the devices work. The state of the interrupt controllers must be set before, because the
// devices now set the levels of their lines.
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

// Close ends all devices, in reverse order, and releases their resources. No vCPU may exist any more.
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

// States returns the state of all devices, which must be drained. It does not access guest memory and
// raises no interrupt.
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

// Restore sets the states of all devices. There must be exactly one section for each; that is verified
// before anything is set. After an error the devices can only be closed.
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
			return badState("the state of %s %d is missing", m.tag, m.index)
		}
	}
	for i, m := range s.members {
		if err := loads[i](); err != nil {
			return fmt.Errorf("restore %s %d: %w", m.tag, m.index, err)
		}
	}
	return nil
}
