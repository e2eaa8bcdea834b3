package vmm

import (
	"errors"
	"io"
)

// ErrLeave is what a console's input returns when its user wants to end the machine.
var ErrLeave = errors.New("the console was left")

// feedConsole starts to carry what is typed to the serial port. in must return from a Read once it is
// closed, which stop does; nil: there is no input.
func (m *Machine) feedConsole(in io.ReadCloser) (stop func() error) {
	if in == nil {
		return func() error { return nil }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if m.serial != nil {
			m.pump(in)
		}
	}()
	return func() error {
		err := in.Close()
		<-done
		return err
	}
}

func (m *Machine) pump(in io.Reader) {
	buf := make([]byte, 256)
	for {
		n, err := in.Read(buf)
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
