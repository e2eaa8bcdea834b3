package fs

import (
	"encoding/binary"
	"errors"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A notifyDevice is a notifier that writes what is pushed into page caches to /dev/fuse by itself.
// A restore of scattered pages sends a notification for each run of one or two pages, and go-fuse
// makes a request of each, with a map and six slices, which costs a fifth of the push.
type notifyDevice struct {
	notifier
	fd       int       // open as long as there may be pushes
	messages sync.Pool // of *storeMessage
}

const (
	// notifyStore is FUSE_NOTIFY_STORE of <linux/fuse.h>.
	notifyStore = 4
	// storeHeader is the length of fuse_out_header and fuse_notify_store_out.
	storeHeader = 16 + 24
)

// A storeMessage is the memory of one notification: header and pages, in one writev.
type storeMessage struct {
	header [storeHeader]byte
	parts  [2][]byte
}

// InodeNotifyStoreCache implements notifier.
func (d *notifyDevice) InodeNotifyStoreCache(node uint64, offset int64, data []byte) fuse.Status {
	m, ok := d.messages.Get().(*storeMessage)
	if !ok {
		m = new(storeMessage)
	}
	defer d.messages.Put(m)
	m.fill(node, offset, data)
	_, err := unix.Writev(d.fd, m.parts[:])
	m.parts[1] = nil
	return storeStatus(err)
}

// fill makes the message of struct fuse_out_header, struct fuse_notify_store_out, and data.
func (m *storeMessage) fill(node uint64, offset int64, data []byte) {
	h := m.header[:]
	binary.NativeEndian.PutUint32(h[0:], uint32(storeHeader+len(data)))
	binary.NativeEndian.PutUint32(h[4:], notifyStore)
	binary.NativeEndian.PutUint64(h[8:], 0) // unique: it answers no request
	binary.NativeEndian.PutUint64(h[16:], node)
	binary.NativeEndian.PutUint64(h[24:], uint64(offset))
	binary.NativeEndian.PutUint32(h[32:], uint32(len(data)))
	binary.NativeEndian.PutUint32(h[36:], 0) // padding
	m.parts = [2][]byte{h, data}
}

func storeStatus(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return fuse.Status(errno)
	}
	return fuse.EIO
}
