package uffd

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A peer is the process of a VM, known by a pidfd: so its number cannot become another's.
type peer struct {
	pid   int
	file  *os.File
	fd    int           // of file
	ended chan struct{} // closed when it has ended, or is not watched any more
}

// newPeer watches a process by its pidfd, which it takes.
func newPeer(pid, fd int) (*peer, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the VM: %w", err)
	}
	p := &peer{pid: pid, file: os.NewFile(uintptr(fd), "pidfd"), fd: fd, ended: make(chan struct{})}
	raw, err := p.file.SyscallConn()
	if err != nil {
		p.file.Close()
		return nil, fmt.Errorf("watch the VM: %w", err)
	}
	go func() {
		defer close(p.ended)
		_ = raw.Read(func(fd uintptr) bool { return readable(int(fd)) })
	}()
	return p, nil
}

// readable says whether a read of a descriptor would not wait: of a pidfd, that its process has ended.
func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n > 0 && err == nil
}

// alive says whether the process has not ended.
func (p *peer) alive() bool { return !readable(p.fd) }

// killPatience is how long a process may take to end. It is longer when the kernel writes its core.
const killPatience = 10 * time.Second

// kill sends SIGKILL.
func (p *peer) kill() error {
	if err := killBy(p.fd); err != nil {
		return fmt.Errorf("end the VM (process %d): %w", p.pid, err)
	}
	return nil
}

// wait waits for the end of a process that was killed. This process must have closed its userfaultfd
// before: a kernel thread that fetches a page for a vCPU cannot be killed, waits until all copies of the
// descriptor are closed, and holds up the end of the VM.
func (p *peer) wait() error {
	t := time.NewTimer(killPatience)
	defer t.Stop()
	select {
	case <-p.ended:
		return nil
	case <-t.C:
		return fmt.Errorf("the VM (process %d) was killed, and has not ended after %v", p.pid, killPatience)
	}
}

// killBy kills the process of a pidfd; one that has ended is no error.
func killBy(fd int) error {
	err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// close ends the watch.
func (p *peer) close() {
	_ = p.file.SetReadDeadline(time.Unix(1, 0))
	<-p.ended
	p.file.Close()
}

// peerOf finds the process at the other end of a connection. A pidfd of -1 says that it cannot be ended.
func peerOf(conn int) (pid, fd int, err error) {
	cred, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, -1, err
	}
	pid = int(cred.Pid)
	if pid <= 0 {
		return pid, -1, errors.New("it is in another PID namespace")
	}
	if fd, err = unix.GetsockoptInt(conn, unix.SOL_SOCKET, unix.SO_PEERPIDFD); err != nil {
		// Before Linux 6.5: the number is right as long as the connection is open.
		if fd, err = unix.PidfdOpen(pid, 0); err != nil {
			return pid, -1, err
		}
	}
	if err := unix.PidfdSendSignal(fd, 0, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		unix.Close(fd)
		return pid, -1, err
	}
	return pid, fd, nil
}
