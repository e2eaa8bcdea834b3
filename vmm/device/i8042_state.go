package device

// I8042State is the state of an I8042.
type I8042State struct {
	Control uint8 // control byte
	Output  uint8 // output port
	Command uint8 // whose parameter comes next, 0: none's
	Data    uint8 // what the data port reads
	Full    uint8 // 1: Data has not been read
}

// Tag names the section of the state file.
func (*I8042) Tag() string { return "I8042" }

// State returns what is saved.
func (k *I8042) State() I8042State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Restore sets it.
func (k *I8042) Restore(s I8042State) error {
	switch s.Command {
	case 0, i8042WriteControl, i8042WriteOutput, i8042EchoKbd, i8042EchoAux, i8042SendAux:
	default:
		return badState("keyboard controller waits for the parameter of command %#x", s.Command)
	}
	if s.Full > 1 || s.Output&i8042OutputRunning == 0 {
		return badState("keyboard controller %+v", s)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
	return nil
}
