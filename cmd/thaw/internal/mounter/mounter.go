// Package mounter is a privileged process that mounts for a server which runs without root.
//
// A server that root starts for another user ("thaw mount --user") cannot call mount(2) when its store is
// open and its socket listens: it has given its rights away before it touched either. So it first starts
// this program again as a mounter ([Start]), and then becomes the user. When it is told to ([Mounter.Mount]),
// the mounter opens /dev/fuse, mounts, hands the descriptor over, and ends.
//
// The mounter is told what to mount by its arguments, when its starter is root still, and opens the directory
// at once: nothing that the server's user says or renames afterwards changes where or how it mounts. It does
// one thing, once. If the server ends first, it ends, too.
package mounter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/fs"
)

// Command is the name of the hidden command that runs Main.
const Command = "mounter-of-a-server"

// Args is how many arguments Start adds.
const Args = 6

// What is said on the socket: the server asks with the first, and the answer is the second, together with
// the descriptor, or what went wrong. The mounter says the third when it has opened the directory.
const (
	sayMount   = "mount"
	sayMounted = "mounted"
	sayReady   = "ready"
)

const (
	socketFD = 3 // in the mounter
	maxText  = 4096
	patience = 30 * time.Second // for an answer
)

// A Mounter is a process that will mount when it is told to.
type Mounter struct {
	cmd  *exec.Cmd
	conn int // a socket, SOCK_SEQPACKET; -1: closed
}

// Start starts cmd, which runs Main with the arguments that Start adds, to mount on a directory; see
// fs.MountFor.
func Start(cmd *exec.Cmd, at string, how fs.Mounting) (*Mounter, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "socket of the mounter")
	defer theirs.Close()
	m := &Mounter{cmd: cmd, conn: pair[0]}
	limit := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(m.conn, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		unix.Close(m.conn)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	cmd.Args = append(cmd.Args, at, strconv.FormatUint(uint64(how.Server.Uid), 10),
		strconv.FormatUint(uint64(how.Server.Gid), 10), strconv.FormatBool(how.Shared),
		strconv.FormatBool(how.ReadOnly), how.Source)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // signals of the terminal are for the server
	if err := cmd.Start(); err != nil {
		unix.Close(m.conn)
		return nil, fmt.Errorf("start the mounter: %w", err)
	}
	if _, err := m.hear(sayReady); err != nil {
		_ = m.Close() // it has said why
		return nil, err
	}
	return m, nil
}

// Mount has it mount, and returns the device of the connection. The mounter has ended then.
func (m *Mounter) Mount(context.Context) (device int, err error) {
	if err := unix.Send(m.conn, []byte(sayMount), unix.MSG_NOSIGNAL); err != nil {
		return -1, fmt.Errorf("ask the mounter: %w", err)
	}
	device, err = m.hear(sayMounted)
	if cerr := m.Close(); err == nil && cerr != nil {
		unix.Close(device)
		return -1, cerr
	}
	return device, err
}

// hear waits for an answer, and returns the descriptor that comes with it; -1 if none does.
func (m *Mounter) hear(want string) (fd int, err error) {
	text, rights := make([]byte, maxText), make([]byte, unix.CmsgSpace(4))
	n, control, _, _, err := unix.Recvmsg(m.conn, text, rights, unix.MSG_CMSG_CLOEXEC)
	for errors.Is(err, unix.EINTR) {
		n, control, _, _, err = unix.Recvmsg(m.conn, text, rights, unix.MSG_CMSG_CLOEXEC)
	}
	switch {
	case err != nil:
		return -1, fmt.Errorf("the mounter does not answer: %w", err)
	case n == 0:
		return -1, errors.New("the mounter has ended")
	case string(text[:n]) != want:
		return -1, errors.New(string(text[:n]))
	}
	messages, err := unix.ParseSocketControlMessage(rights[:control])
	if err != nil || len(messages) == 0 {
		return -1, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}

// Close ends the mounter, if it has not ended, and waits for its end.
func (m *Mounter) Close() error {
	if m.conn < 0 {
		return nil
	}
	unix.Close(m.conn)
	m.conn = -1
	if err := m.cmd.Wait(); err != nil {
		return fmt.Errorf("the mounter: %w", err)
	}
	return nil
}

// Main is the mounter: with the arguments that Start has added, and its socket as descriptor 3.
func Main(args []string) error {
	unix.CloseOnExec(socketFD)
	err := serve(args)
	if err != nil {
		// On a socket that nobody reads it is of no use.
		_ = unix.Send(socketFD, []byte(err.Error()), unix.MSG_NOSIGNAL)
	}
	return err
}

func serve(args []string) error {
	how, err := parse(args)
	if err != nil {
		return fmt.Errorf("mounter: %w", err)
	}
	dir, err := unix.Open(args[0], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open mount point", Path: args[0], Err: err}
	}
	defer unix.Close(dir)
	if err := unix.Send(socketFD, []byte(sayReady), unix.MSG_NOSIGNAL); err != nil {
		return err
	}
	text := make([]byte, len(sayMount))
	n, err := unix.Read(socketFD, text)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(socketFD, text)
	}
	if err != nil || string(text[:n]) != sayMount {
		return err // the server has ended, or has something else to do
	}
	device, err := fs.MountFor(fmt.Sprintf("/proc/self/fd/%d", dir), how)
	if err != nil {
		return err
	}
	defer unix.Close(device)
	return unix.Sendmsg(socketFD, []byte(sayMounted), unix.UnixRights(device), nil, unix.MSG_NOSIGNAL)
}

// parse reads the arguments that Start has added.
func parse(args []string) (fs.Mounting, error) {
	if len(args) != Args {
		return fs.Mounting{}, fmt.Errorf("%d arguments, not %d", len(args), Args)
	}
	uid, err1 := strconv.ParseUint(args[1], 10, 32)
	gid, err2 := strconv.ParseUint(args[2], 10, 32)
	shared, err3 := strconv.ParseBool(args[3])
	readOnly, err4 := strconv.ParseBool(args[4])
	return fs.Mounting{
		Server: fuse.Owner{Uid: uint32(uid), Gid: uint32(gid)},
		Shared: shared, ReadOnly: readOnly, Source: args[5],
	}, errors.Join(err1, err2, err3, err4)
}
