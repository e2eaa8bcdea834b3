package process

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Watched is a process of somebody else's, watched until it ends. Its number cannot become that of
// another process meanwhile.
type Watched struct {
	PID int
	fd  int // -1: it has ended, or is seen from another PID namespace under another number
}

// Watch begins to watch a process.
func Watch(pid int) Watched {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		fd = -1
	}
	return Watched{pid, fd}
}

// Wait returns when the process has ended; false if it has not after so long.
func (p Watched) Wait(patience time.Duration) bool {
	for deadline := time.Now().Add(patience); p.fd >= 0; {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
	return true
}

// Signal sends a signal to the process.
func (p Watched) Signal(sig syscall.Signal) error { return unix.PidfdSendSignal(p.fd, sig, nil, 0) }

// Close ends the watch.
func (p Watched) Close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
}
