package device

import "sync"

// Ports of the keyboard controller, relative to 0x60. Port 0x61, between them, is the speaker port of
// the PIT, which KVM serves itself.
const (
	i8042Data    = 0 // 0x60
	i8042Command = 4 // 0x64; reads give the status
	I8042Size    = 5
)

// Status register.
const (
	i8042StatusFull     = 1 << 0 // a byte waits in the data port
	i8042StatusSystem   = 1 << 2 // the self test has passed
	i8042StatusCommand  = 1 << 3 // the last write was a command
	i8042StatusUnlocked = 1 << 4 // Linux warns of a locked keyboard without it
)

// Commands.
const (
	i8042ReadControl  = 0x20
	i8042WriteControl = 0x60
	i8042DisableAux   = 0xa7
	i8042EnableAux    = 0xa8
	i8042TestAux      = 0xa9
	i8042SelfTest     = 0xaa
	i8042TestKeyboard = 0xab
	i8042DisableKbd   = 0xad
	i8042EnableKbd    = 0xae
	i8042ReadOutput   = 0xd0
	i8042WriteOutput  = 0xd1
	i8042EchoKbd      = 0xd2 // the parameter is returned as if it came from the keyboard
	i8042EchoAux      = 0xd3 // the same from the mouse
	i8042SendAux      = 0xd4
	i8042Pulse        = 0xf0 // to 0xff: pulls the output lines whose bit is clear low for a moment
)

// Control byte and output port.
const (
	i8042ControlKbdOff = 1 << 4
	i8042ControlAuxOff = 1 << 5
	i8042ControlReset  = 0x34 // both ports off, self test passed: as firmware leaves it

	i8042OutputRunning = 1 << 0 // the reset line of the CPU, active low
	i8042OutputA20     = 1 << 1
)

// I8042 is a keyboard controller without keyboard and mouse. Guests use it to reset a PC. A kernel that
// probes for it waits half a second for every missing answer, so it answers all commands for the
// controller itself. It has no interrupts, because it never sends data by itself.
type I8042 struct {
	mu    sync.Mutex // guards state
	state I8042State
}

// NewI8042 makes a controller as firmware leaves it.
func NewI8042() *I8042 {
	return &I8042{state: I8042State{Control: i8042ControlReset,
		Output: i8042OutputRunning | i8042OutputA20}}
}

// Read returns the status or the waiting byte.
func (k *I8042) Read(off uint64, p []byte) error {
	for i := range p {
		p[i] = 0xff // as at a port without a device
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch off {
	case i8042Command:
		p[0] = i8042StatusSystem | i8042StatusUnlocked
		if k.state.Full != 0 {
			p[0] |= i8042StatusFull
		}
		if k.state.Command != 0 {
			p[0] |= i8042StatusCommand
		}
	case i8042Data:
		p[0] = k.state.Data
		k.state.Full = 0
	}
	return nil
}

// Write takes a command, or the parameter of one.
func (k *I8042) Write(off uint64, p []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch off {
	case i8042Command:
		return k.command(p[0])
	case i8042Data:
		return k.parameter(p[0])
	}
	return nil
}

func (k *I8042) command(c byte) error {
	k.state.Command = 0
	switch c {
	case i8042ReadControl:
		k.answer(k.state.Control)
	case i8042ReadOutput:
		k.answer(k.state.Output)
	case i8042WriteControl, i8042WriteOutput, i8042EchoKbd, i8042EchoAux, i8042SendAux:
		k.state.Command = c
	case i8042SelfTest:
		k.answer(0x55) // passed
	case i8042TestKeyboard:
		k.answer(0) // the lines work
	case i8042TestAux:
		k.answer(1) // the clock line is stuck: Linux takes that for a missing port
	case i8042DisableKbd:
		k.state.Control |= i8042ControlKbdOff
	case i8042EnableKbd:
		k.state.Control &^= i8042ControlKbdOff
	case i8042DisableAux:
		k.state.Control |= i8042ControlAuxOff
	case i8042EnableAux:
		k.state.Control &^= i8042ControlAuxOff
	default:
		if c >= i8042Pulse && c&i8042OutputRunning == 0 {
			return ErrReset // 0xfe, the usual way to reset a PC
		}
	}
	return nil
}

func (k *I8042) parameter(b byte) error {
	c := k.state.Command
	k.state.Command = 0
	switch c {
	case i8042WriteControl:
		k.state.Control = b
	case i8042WriteOutput:
		if b&i8042OutputRunning == 0 {
			return ErrReset
		}
		k.state.Output = b
	case i8042EchoKbd, i8042EchoAux:
		k.answer(b) // without the mark of the mouse, so a probe for a mouse fails
	}
	return nil // data for a keyboard or mouse, which do not exist
}

func (k *I8042) answer(b byte) { k.state.Data, k.state.Full = b, 1 }

// I8042State is the state of an I8042.
type I8042State struct {
	Control uint8 // control byte
	Output  uint8 // output port
	Command uint8 // the command that waits for its parameter; 0: none
	Data    uint8 // what the data port reads
	Full    uint8 // 1: Data has not been read
}

// Tag returns the tag of the section in the state file.
func (*I8042) Tag() string { return "I8042" }

// State returns the state for a checkpoint.
func (k *I8042) State() I8042State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Restore sets the state.
func (k *I8042) Restore(s I8042State) error {
	switch s.Command {
	case 0, i8042WriteControl, i8042WriteOutput, i8042EchoKbd, i8042EchoAux, i8042SendAux:
	default:
		return badState("the keyboard controller waits for the parameter of command %#x, which has none", s.Command)
	}
	if s.Full > 1 || s.Output&i8042OutputRunning == 0 {
		return badState("the keyboard controller cannot have state %+v", s)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
	return nil
}
