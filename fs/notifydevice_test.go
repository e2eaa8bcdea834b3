package fs

import (
	"bytes"
	"encoding/binary"
	"os"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A message is what <linux/fuse.h> says: struct fuse_out_header with error FUSE_NOTIFY_STORE and
// unique 0, struct fuse_notify_store_out, and the pages.
func TestNotifyDeviceMessage(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	d := &notifyDevice{fd: int(w.Fd())}
	for i, pages := range []int{3, 1, 2} {
		data := bytes.Repeat([]byte{byte(i + 1)}, pages*PageSize)
		const node = 0x123456789abcdef0
		offset := int64(i+7) << 33
		if st := d.InodeNotifyStoreCache(node, offset, data); !st.Ok() {
			t.Fatalf("message %d: %v", i, st)
		}
		got := make([]byte, 1<<16)
		n, err := r.Read(got)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		for _, v := range []any{uint32(40 + len(data)), int32(4), uint64(0),
			uint64(node), offset, uint32(len(data)), uint32(0), data} {
			if err := binary.Write(&want, binary.NativeEndian, v); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got[:n], want.Bytes()) {
			t.Errorf("message %d of %d pages: got %d bytes, %x..., want %d, %x...", i, pages,
				n, got[:40], want.Len(), want.Bytes()[:40])
		}
	}
}

// What the kernel refuses has its error, and the next message is whole.
func TestNotifyDeviceError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	d := &notifyDevice{fd: int(full.Fd())}
	page := make([]byte, PageSize)
	if st := d.InodeNotifyStoreCache(1, 0, page); st != fuse.Status(syscall.ENOSPC) {
		t.Errorf("a full device: %v, want ENOSPC", st)
	}
	d.fd = -1
	if st := d.InodeNotifyStoreCache(1, 0, page); st != fuse.EBADF {
		t.Errorf("no device: %v, want EBADF", st)
	}
}

// A push that writes to the device itself makes no garbage.
func TestNotifyDeviceAllocations(t *testing.T) {
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	d := &notifyDevice{fd: int(null.Fd())}
	page := make([]byte, PageSize)
	allocs := testing.AllocsPerRun(1000, func() {
		if st := d.InodeNotifyStoreCache(1, 0, page); !st.Ok() {
			t.Fatal(st)
		}
	})
	if allocs > 0 {
		t.Errorf("%.1f allocations a push", allocs)
	}
}
