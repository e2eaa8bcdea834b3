package vmm

import (
	"errors"
	"io"
)

// ErrLeave is what a console's input returns when its user wants to end the machine.
var ErrLeave = errors.New("the console was left")

// feedConsole starts to copy console input to the serial port. Closing in, which stop does, must end a
// Read that waits. in may be nil: there is no input.
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
		// Input that does not fit is dropped, as on a real serial line. Waiting would block the escape
		// sequence that ends the machine.
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
