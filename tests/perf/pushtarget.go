package perf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A pushTarget is a mounted file of this process into whose page cache it pushes. Another process has
// it open; this one never uses it.
type pushTarget struct {
	fd      int // of /dev/fuse
	server  *fuse.Server
	headers sync.Pool // of *[40]byte
}

// newPushTarget mounts ramFS with one file of so many bytes.
func newPushTarget(mnt string, size int) (_ *pushTarget, err error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	p := &pushTarget{}
	if p.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("dup: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", fd, os.Geteuid(), os.Getegid())
	if err = unix.Mount("push", mnt, "fuse.perf", 0, options); err == nil {
		p.server, err = fuse.NewServer(&ramFS{fuse.NewDefaultRawFileSystem(), make([]byte, size)},
			fmt.Sprintf("/dev/fd/%d", fd),
			&fuse.MountOptions{MaxReadAhead: 4096, DisableXAttrs: true, ExplicitDataCacheControl: true})
	}
	if err != nil {
		err = errors.Join(err, unix.Unmount(mnt, unix.MNT_DETACH))
		unix.Close(fd)
		unix.Close(p.fd)
		return nil, fmt.Errorf("mount: %w", err)
	}
	return p, nil
}

// close unmounts, when nobody has the file open.
func (p *pushTarget) close(mnt string) error {
	err := unix.Unmount(mnt, unix.MNT_DETACH)
	p.server.Wait()
	return errors.Join(err, unix.Close(p.fd))
}

// store is one FUSE_NOTIFY_STORE. refused is the error that the kernel should have; nil: none.
func (p *pushTarget) store(node, first uint64, pages []byte, refused error) error {
	h, ok := p.headers.Get().(*[40]byte)
	if !ok {
		h = new([40]byte)
	}
	defer p.headers.Put(h)
	binary.NativeEndian.PutUint32(h[0:], uint32(len(h)+len(pages)))
	binary.NativeEndian.PutUint32(h[4:], 4) // FUSE_NOTIFY_STORE
	binary.NativeEndian.PutUint64(h[16:], node)
	binary.NativeEndian.PutUint64(h[24:], first*4096)
	binary.NativeEndian.PutUint32(h[32:], uint32(len(pages)))
	if _, err := unix.Writev(p.fd, [][]byte{h[:], pages}); err != refused {
		return fmt.Errorf("push page %d: %w", first, err)
	}
	return nil
}
