package vmm

import (
	"errors"
	"io"
)

// ErrLeave is what a console's input returns when its user wants to end the machine.
var ErrLeave = errors.New("the console was left")

// pump carries what is typed to the serial port of a machine.
type pump struct {
	in   io.ReadCloser
	done chan struct{}
}

// feedConsole starts to read. in must return from a Read once it is closed. nil: there is no input.
func (m *Machine) feedConsole(in io.ReadCloser) *pump {
	p := &pump{in: in, done: make(chan struct{})}
	if in == nil || m.serial == nil {
		close(p.done)
		return p
	}
	go p.run(m)
	return p
}

func (p *pump) run(m *Machine) {
	defer close(p.done)
	buf := make([]byte, 256)
	for {
		n, err := p.in.Read(buf)
		// What does not fit is dropped, as on a real line: the next byte may be the one that leaves.
		if _, err := m.serial.Feed(buf[:n]); err != nil {
			m.end(err)
			return
		}
		if errors.Is(err, ErrLeave) {
			m.Stop()
		}
		if err != nil {
			return
		}
	}
}

// stop ends it and waits.
func (p *pump) stop() error {
	if p.in == nil {
		return nil
	}
	err := p.in.Close()
	<-p.done
	return err
}
