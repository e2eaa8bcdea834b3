package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mounted is an empty FUSE file system that nobody serves. Nobody may look into it either: it is
// closed before anyone has the time.
type mounted struct {
	fd  int
	dir string
	how string
	end func() error
}

// tryMount mounts by mount(2), or by fusermount3 where this process has no right to.
func tryMount(ctx context.Context) (m *mounted, err error) {
	dir, err := os.MkdirTemp("", "thaw-doctor-")
	if err != nil {
		return nil, err
	}
	direct, errDirect := mountDirect(dir)
	if errDirect == nil {
		return direct, nil
	}
	helped, errHelper := mountHelped(ctx, dir)
	if errHelper == nil {
		return helped, nil
	}
	return nil, errors.Join(fmt.Errorf("mount(2): %w; fusermount3: %w", errDirect, errHelper),
		os.Remove(dir))
}

func mountDirect(dir string) (*mounted, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d",
		fd, os.Geteuid(), os.Getegid())
	err = unix.Mount("thaw-doctor", dir, "fuse.thaw-doctor", unix.MS_NOSUID|unix.MS_NODEV, options)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	end := func() error { return unix.Unmount(dir, unix.MNT_DETACH) }
	return &mounted{fd, dir, "mount(2)", end}, nil
}

// mountHelped has fusermount3 mount; it sends the descriptor over a socket.
func mountHelped(ctx context.Context, dir string) (*mounted, error) {
	helper, err := fusermount()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	cmd := exec.CommandContext(ctx, helper, "-o", "fsname=thaw-doctor,subtype=thaw-doctor", "--", dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	end := func() error { return exec.Command(helper, "-u", "-z", "--", dir).Run() }
	fd, err := receive(ours)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return &mounted{fd, dir, filepath.Base(helper), end}, nil
}

// receive takes a descriptor off a socket.
func receive(f *os.File) (int, error) {
	data, control := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(f.Fd()), data, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return 0, err
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return 0, errors.New("no descriptor came from fusermount3")
}

// close ends the file system: without its descriptor whoever looked into it gets an error.
func (m *mounted) close() error {
	return errors.Join(unix.Close(m.fd), m.end(), os.Remove(m.dir))
}

// fuseInit is what the kernel says of itself when a file system is mounted.
type fuseInit struct {
	major, minor, maxReadahead uint32
	flags                      uint64
}

// init reads the FUSE_INIT request, which is never answered.
func (m *mounted) init() (fuseInit, error) {
	poll := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}}
	for end := time.Now().Add(time.Second); ; {
		n, err := unix.Poll(poll, int(time.Until(end).Milliseconds())+1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fuseInit{}, err
		case n == 0:
			return fuseInit{}, errNoInit
		}
		break
	}
	buf := make([]byte, 128<<10) // the kernel wants room for any request
	n, err := unix.Read(m.fd, buf)
	if err != nil {
		return fuseInit{}, fmt.Errorf("read /dev/fuse: %w", err)
	}
	return parseInit(buf[:n])
}

// parseInit reads struct fuse_in_header and fuse_init_in.
func parseInit(b []byte) (fuseInit, error) {
	const header, opInit = 40, 26
	le := binary.NativeEndian
	if len(b) < header+16 || le.Uint32(b[4:]) != opInit {
		return fuseInit{}, errNoInit
	}
	b = b[header:]
	i := fuseInit{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:]), uint64(le.Uint32(b[12:]))}
	const extended = 1 << 30 // FUSE_INIT_EXT: there is a flags2
	if i.flags&extended != 0 && len(b) >= 20 {
		i.flags |= uint64(le.Uint32(b[16:])) << 32
	}
	return i, nil
}
