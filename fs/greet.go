package fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// go-fuse begins to serve a connection by answering its INIT. A connection that another server has begun
// gives no second one, and to answer some other request in its place (which go-fuse does) would mean to do so
// before the server is ready. So go-fuse is given one end of a pair of sockets as its /dev/fuse. An INIT
// comes out of it, the kernel's own one or the one that the first server got, and the answer goes into it.
// Then /dev/fuse takes the place of the socket, under the same descriptor. go-fuse reads and writes its
// descriptor by number, each message by one system call; TestGreeting shows that it does.

// greeting is an INIT and its answer.
type greeting struct{ init, reply []byte }

// An AgreementError says why a server cannot go on with a connection: the kernel was told something else
// about it when it was made than this server would tell it.
type AgreementError struct{ Why string }

func (e *AgreementError) Error() string {
	return "what was agreed with the kernel when it was mounted is not what this version would agree: " + e.Why
}

// meet makes a go-fuse server of init. The function that it returns puts a descriptor of /dev/fuse in its
// place; until then the server must not serve.
func meet(fsys fuse.RawFileSystem, init []byte, o *fuse.MountOptions) (
	srv *fuse.Server, reply []byte, connect func(device int) error, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := pair[0], pair[1]
	defer unix.Close(ours)
	if _, err := unix.Write(ours, init); err != nil {
		unix.Close(theirs)
		return nil, nil, nil, fmt.Errorf("INIT: %w", err)
	}
	srv, err = fuse.NewServer(fsys, fmt.Sprintf("/dev/fd/%d", theirs), o) // it closes theirs, in the end
	if err != nil {
		return nil, nil, nil, err
	}
	reply = make([]byte, 4096)
	n, err := unix.Read(ours, reply)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("answer to INIT: %w", err)
	}
	return srv, reply[:n], func(device int) error {
		return os.NewSyscallError("dup3", unix.Dup3(device, theirs, unix.O_CLOEXEC))
	}, nil
}

// greet serves a connection that was just mounted: device is its /dev/fuse, which it closes.
func (s *Server) greet(device int) (srv *fuse.Server, g greeting, err error) {
	defer unix.Close(device)
	buf := make([]byte, 64<<10)
	n, err := unix.Read(device, buf)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Read(device, buf)
	}
	if err != nil {
		return nil, g, fmt.Errorf("read INIT: %w", err)
	}
	g.init = bytes.Clone(buf[:n])
	srv, reply, connect, err := meet(s.raw(), g.init, s.mountOptions())
	if err != nil {
		return nil, g, err
	}
	g.reply = reply
	if _, err := unix.Write(device, reply); err != nil {
		return nil, g, fmt.Errorf("answer INIT: %w", err)
	}
	return srv, g, connect(device)
}

// greetAgain serves a connection that another server has begun. An AgreementError if its INIT would be
// answered in another way now; nothing has been done then.
func (s *Server) greetAgain(device int, before greeting, o *fuse.MountOptions) error {
	srv, reply, connect, err := meet(s.raw(), before.init, o)
	if err != nil {
		return err
	}
	if why := differ(before.reply, reply); why != "" {
		retire(srv, connect)
		return &AgreementError{why}
	}
	if err := connect(device); err != nil {
		return err
	}
	s.fuse = srv
	return nil
}

// retire ends a server that is to serve nothing: a /dev/fuse that is not mounted has it end at once.
func retire(srv *fuse.Server, connect func(device int) error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return // its socket is closed when it is collected
	}
	defer unix.Close(fd)
	if connect(fd) == nil {
		srv.Serve()
	}
}

// The fields of struct fuse_init_out, behind struct fuse_out_header.
var initFields = []struct {
	name     string
	at, size int
}{
	{"major version", 16, 4}, {"minor version", 20, 4}, {"max_readahead", 24, 4}, {"flags", 28, 4},
	{"max_background", 32, 2}, {"congestion_threshold", 34, 2}, {"max_write", 36, 4},
	{"time_gran", 40, 4}, {"max_pages", 44, 2}, {"flags2", 48, 4}, {"max_stack_depth", 52, 4},
}

// differ says in what two answers to INIT differ; "" if they are alike.
func differ(before, now []byte) string {
	if bytes.Equal(before, now) {
		return ""
	}
	field := func(b []byte, at, size int) uint64 {
		var v [8]byte
		if at < len(b) {
			copy(v[:size], b[at:])
		}
		return binary.NativeEndian.Uint64(v[:])
	}
	for _, f := range initFields {
		if was, is := field(before, f.at, f.size), field(now, f.at, f.size); was != is {
			return fmt.Sprintf("%s was %#x and would be %#x", f.name, was, is)
		}
	}
	return "the answers to INIT differ"
}

// resends says whether a kernel sends requests again that a server has left unanswered: by the flags of its
// INIT.
func resends(init []byte) bool {
	// struct fuse_in_header, then major, minor, max_readahead, flags, flags2.
	const header, flags2 = 40, 40 + 16
	if len(init) < flags2+4 {
		return false
	}
	return binary.NativeEndian.Uint32(init[flags2:])&uint32(fuse.CAP_HAS_RESEND>>32) != 0
}

// notifyResend is FUSE_NOTIFY_RESEND of <linux/fuse.h>.
const notifyResend = 7

// resend has the kernel send all requests again that were read and not answered.
func resend(device int) error {
	var b [16]byte
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], notifyResend)
	_, err := unix.Write(device, b[:])
	return err
}
