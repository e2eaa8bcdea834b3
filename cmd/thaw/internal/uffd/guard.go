package uffd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The guard is a process beside the pager. It accepts the VM's connection, so that there is no moment at
// which a VM depends on a pager that nobody watches, and passes it on. When the pager ends without a
// farewell, it kills the VM, which would wait for its memory for ever. It is told on its standard input,
// a socket of messages of one byte:
//
//	guard -> pager  'v', then the process number and an error's text; with the connection and a pidfd
//	pager -> guard  'n'  that was nobody: accept the next one
//	                's'  it is served: turn all others away
//	                'w'  with a pidfd: a VM is served already; to a guard in place of one that died
//	                'f'  farewell: the VM has ended, or needs nobody any more
//
// GuardCommand is the name of the hidden command that is the guard.
const GuardCommand = "guard-of-a-vm"

const (
	tellVM       = 'v'
	tellNobody   = 'n'
	tellServed   = 's'
	tellWatch    = 'w'
	tellFarewell = 'f'
)

// guard is the pager's side of it.
type guard struct {
	cmd   *exec.Cmd
	conn  *net.UnixConn
	ended chan struct{}
}

// startGuard starts a guard, which accepts from listener, if there is one.
func startGuard(cmd *exec.Cmd, listener *os.File) (*guard, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "guard"), os.NewFile(uintptr(pair[1]), "pager")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	g := &guard{cmd: cmd, conn: conn.(*net.UnixConn), ended: make(chan struct{})}
	cmd.Stdin = theirs
	if listener != nil {
		cmd.ExtraFiles = []*os.File{listener}
		cmd.Args = append(cmd.Args, "accept")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals of a terminal are not for it
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the guard: %w", err), conn.Close())
	}
	go func() {
		defer close(g.ended)
		_ = cmd.Wait()
	}()
	return g, nil
}

// A caller is who has connected.
type caller struct {
	pid   int
	conn  *net.UnixConn
	pidfd int   // -1: it cannot be ended
	why   error // that is so
}

// errNoCaller: nobody connected in time.
var errNoCaller = errors.New("no VM has connected")

// next waits for the next one who connects; for ever if patience is 0.
func (g *guard) next(ctx context.Context, patience time.Duration) (*caller, error) {
	stop := context.AfterFunc(ctx, func() { _ = g.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if patience > 0 {
		_ = g.conn.SetReadDeadline(time.Now().Add(patience))
	}
	buf, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*2))
	n, cn, _, _, err := g.conn.ReadMsgUnix(buf, control)
	cn = max(cn, 0) // -1 with an error
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%w within %v", errNoCaller, patience)
	case err != nil || n < 9 || buf[0] != tellVM:
		return nil, errors.New("its guard has died")
	}
	fds, err := descriptors(control[:cn])
	if err != nil {
		return nil, fmt.Errorf("from the guard: %w", err)
	}
	if len(fds) == 0 {
		return nil, errors.New("the guard has sent no connection")
	}
	c := &caller{pid: int(binary.LittleEndian.Uint64(buf[1:])), pidfd: -1}
	if len(fds) > 1 {
		c.pidfd = fds[1]
	} else {
		c.why = errors.New(string(buf[9:n]))
	}
	f := os.NewFile(uintptr(fds[0]), "connection of the VM")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	c.conn = conn.(*net.UnixConn)
	return c, nil
}

// tell sends a message without descriptors. A guard that has died is found out otherwise.
func (g *guard) tell(what byte) { _, _ = g.conn.Write([]byte{what}) }

// watch has a new guard watch a VM that is served already.
func (g *guard) watch(pidfd int) error {
	_, _, err := g.conn.WriteMsgUnix([]byte{tellWatch}, unix.UnixRights(pidfd), nil)
	return err
}

// close ends the guard and waits for its end. Without a farewell it kills the VM, if there is one.
func (g *guard) close(farewell bool) {
	if farewell {
		g.tell(tellFarewell)
	}
	g.conn.Close()
	<-g.ended
}

// GuardMain is the main function of the guard. accept says that it has a socket to accept from. The
// error says that it had to end a VM.
func GuardMain(accept bool) error {
	d := &door{control: 0, listener: -1, pidfd: -1}
	if accept {
		d.listener = 3 // the first of exec.Cmd.ExtraFiles
		unix.CloseOnExec(d.listener)
		if err := unix.SetNonblock(d.listener, true); err != nil {
			return fmt.Errorf("the guard of a VM: %w", err)
		}
	}
	return d.guard()
}

// A door is what the guard has. It uses no goroutine, and no memory to speak of: it must not fail.
type door struct {
	control  int
	listener int  // -1: all are turned away
	busy     bool // one was let in, and the others have to wait
	pid      int  // of the VM
	pidfd    int  // -1: there is none
}

// guard does its work until the VM or the pager ends.
func (d *door) guard() error {
	for {
		fds := []unix.PollFd{{Fd: int32(d.control), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN},
			{Fd: int32(d.pidfd), Events: unix.POLLIN}}
		if !d.busy {
			fds[1].Fd = int32(d.listener)
		}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return errors.Join(fmt.Errorf("the guard of a VM: %w", err), d.kill())
		}
		switch {
		case fds[0].Revents != 0:
			if farewell := d.obey(); farewell {
				d.turnAway()
				return nil
			} else if d.control < 0 {
				err := d.kill()
				d.turnAway()
				return err
			}
		case fds[2].Revents != 0: // the VM has ended: the pager finds out by itself
			unix.Close(d.pidfd)
			d.pidfd = -1
		case fds[1].Revents != 0:
			d.accept()
		}
	}
}

// obey reads what the pager says. Its end makes control -1.
func (d *door) obey() (farewell bool) {
	buf, control := make([]byte, 16), make([]byte, unix.CmsgSpace(4))
	n, cn, _, _, err := unix.Recvmsg(d.control, buf, control, unix.MSG_CMSG_CLOEXEC)
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		return false
	}
	if err != nil || n == 0 {
		d.control = -1
		return false
	}
	switch buf[0] {
	case tellFarewell:
		return true
	case tellNobody:
		unix.Close(d.pidfd)
		d.pidfd, d.busy = -1, false
	case tellServed:
		d.turnAway()
	case tellWatch:
		if fds, err := descriptors(control[:cn]); err == nil && len(fds) == 1 {
			d.pidfd = fds[0]
		}
	}
	return false
}

// accept lets one in, and tells the pager.
func (d *door) accept() {
	conn, _, err := unix.Accept4(d.listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(conn)
	d.busy = true
	pid, pidfd, err := peerOf(conn)
	text := binary.LittleEndian.AppendUint64([]byte{tellVM}, uint64(pid))
	fds := []int{conn}
	if err != nil {
		text = append(text, err.Error()...)
	} else {
		d.pid, d.pidfd = pid, pidfd
		fds = append(fds, pidfd)
	}
	_ = unix.Sendmsg(d.control, text, unix.UnixRights(fds...), nil, 0) // a pager that died is noticed next
}

// turnAway closes the door. Who has connected meanwhile and handed over a userfaultfd would wait for
// ever, and is killed; who has not is told by an error when it does.
func (d *door) turnAway() {
	if d.listener < 0 {
		return
	}
	_ = unix.Shutdown(d.listener, unix.SHUT_RDWR) // from now on nobody can connect
	for {
		conn, _, err := unix.Accept4(d.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			break
		}
		refuse(conn)
	}
	unix.Close(d.listener)
	d.listener = -1
}

// refuse ends a connection, and its process if it depends on being served.
func refuse(conn int) {
	defer unix.Close(conn)
	_ = unix.Shutdown(conn, unix.SHUT_RDWR) // from now on nothing can be sent
	buf, control := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*maxFDs))
	for {
		n, cn, _, _, err := unix.Recvmsg(conn, buf, control, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		h := hello{}
		if fds, err := descriptors(control[:cn]); err == nil {
			h.take(fds)
		}
		if h.depends {
			if pid, fd, err := peerOf(conn); err == nil {
				fmt.Fprintf(os.Stderr, "thaw: the VM of process %d came to a socket where nobody serves it: "+
					"it was ended, since it would wait for its memory for ever\n", pid)
				_ = killBy(fd)
				unix.Close(fd)
			}
		}
		h.close()
	}
}

// kill ends the VM, because its pager has ended without a farewell.
func (d *door) kill() error {
	if d.pidfd < 0 || readable(d.pidfd) {
		return nil
	}
	err := killBy(d.pidfd)
	return errors.Join(fmt.Errorf("the process that served the memory of a VM (process %d) died: the VM was "+
		"ended, since it would wait for its memory for ever", d.pid), err)
}
