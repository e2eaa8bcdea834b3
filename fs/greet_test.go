package fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// initMessage is an INIT as Linux 6.9 sends it.
func initMessage(flags, flags2 uint32) []byte {
	b := make([]byte, 40+64)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], 26) // FUSE_INIT
	binary.NativeEndian.PutUint64(b[8:], 2)
	binary.NativeEndian.PutUint32(b[40:], 7)
	binary.NativeEndian.PutUint32(b[44:], 40)
	binary.NativeEndian.PutUint32(b[48:], 128<<10)
	binary.NativeEndian.PutUint32(b[52:], flags)
	binary.NativeEndian.PutUint32(b[56:], flags2)
	return b
}

const initExt = 1 << 30 // there are flags2

// What the greeting takes for granted of go-fuse: that it reads and writes the descriptor that it is given by
// number, one message by one system call, and that INIT is over when NewServer returns.
func TestGreeting(t *testing.T) {
	s := testServer(newFakeStore(spec{Name: "a", Pages: 100}))
	t.Cleanup(s.close)
	init := initMessage(initExt|fuse.CAP_MAX_PAGES, uint32(fuse.CAP_HAS_RESEND>>32))
	if !resends(init) || resends(initMessage(initExt, 0)) {
		t.Error("it is not seen that the kernel sends again")
	}
	srv, reply, connect, err := meet(s.raw(), init, s.mountOptions())
	if err != nil {
		t.Fatal(err)
	}
	if got := binary.NativeEndian.Uint32(reply[24:]); got != PageSize {
		t.Errorf("max_readahead %d", got)
	}
	if got := binary.NativeEndian.Uint32(reply[48:]); got&uint32(fuse.CAP_HAS_RESEND>>32) == 0 {
		t.Errorf("flags2 %#x", got)
	}
	if srv.KernelSettings().Minor != 40 {
		t.Errorf("go-fuse knows nothing of the kernel: %+v", srv.KernelSettings())
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	kernel, device := pair[0], pair[1]
	if err := connect(device); err != nil {
		t.Fatal(err)
	}
	unix.Close(device)
	served := make(chan struct{})
	go func() {
		srv.Serve()
		close(served)
	}()
	lookup := make([]byte, 40, 64)
	lookup = append(lookup, "a\x00"...)
	binary.NativeEndian.PutUint32(lookup[0:], uint32(len(lookup)))
	binary.NativeEndian.PutUint32(lookup[4:], 1) // FUSE_LOOKUP
	binary.NativeEndian.PutUint64(lookup[8:], 4|resent)
	binary.NativeEndian.PutUint64(lookup[16:], fuse.FUSE_ROOT_ID)
	if _, err := unix.Write(kernel, lookup); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	n, err := unix.Read(kernel, answer)
	if err != nil || n < 24 {
		t.Fatal(n, err)
	}
	if binary.NativeEndian.Uint32(answer[4:]) != 0 || binary.NativeEndian.Uint64(answer[8:]) != 4|resent {
		t.Errorf("LOOKUP is answered by %x", answer[:16])
	}
	if got, want := binary.NativeEndian.Uint64(answer[16:]), s.tree.peek(s.tree.entry("a").dir()); got != want {
		t.Errorf("node %d, want %d", got, want)
	}
	unix.Close(kernel)
	<-served
}

// A server that would tell the kernel something else does not go on, and says what.
func TestAgreement(t *testing.T) {
	init := initMessage(initExt, uint32(fuse.CAP_HAS_RESEND>>32))
	s := testServer(newFakeStore())
	t.Cleanup(s.close)
	_, before, _, err := meet(s.raw(), init, s.mountOptions())
	if err != nil {
		t.Fatal(err)
	}
	device, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(device)
	for want, change := range map[string]func(*fuse.MountOptions){
		"":               func(*fuse.MountOptions) {},
		"max_readahead":  func(o *fuse.MountOptions) { o.MaxReadAhead = 8192 },
		"max_write":      func(o *fuse.MountOptions) { o.MaxWrite = 64 << 10 },
		"max_background": func(o *fuse.MountOptions) { o.MaxBackground = 12 },
		"flags2":         func(o *fuse.MountOptions) { o.ExtraCapabilities = 0 },
	} {
		o := s.mountOptions()
		change(o)
		err := s.greetAgain(device, greeting{init, before}, o)
		var bad *AgreementError
		switch {
		case want == "" && err != nil:
			t.Error(err)
		case want != "" && (!errors.As(err, &bad) || !strings.Contains(bad.Why, want)):
			t.Errorf("another %s: %v", want, err)
		}
		if want == "" {
			s.fuse = nil
		}
	}
	if differ(before, bytes.Clone(before)) != "" || differ(before, before[:20]) == "" {
		t.Error("answers are compared wrongly")
	}
}
