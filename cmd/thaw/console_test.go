package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/state"
)

// keystrokes is a terminal that gives one piece for each read.
type keystrokes struct{ pieces []string }

func (k *keystrokes) Read(p []byte) (int, error) {
	if len(k.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, k.pieces[0])
	k.pieces[0] = k.pieces[0][n:]
	if k.pieces[0] == "" {
		k.pieces = k.pieces[1:]
	}
	return n, nil
}

func (k *keystrokes) Close() error { return nil }

func TestEscape(t *testing.T) {
	for _, c := range []struct {
		typed string // pieces apart by |
		want  string
		leave bool
	}{
		{"ls\r", "ls\r", false},
		{"\x01x", "", true},
		{"ls\x01|xmore", "ls", true},
		{"\x01|\x01", "\x01", false},
		{"\x01b|x", "\x01bx", false},
		{"\x03|\x04x", "\x03\x04x", false},
		{"\x01\x01x", "\x01x", false},
	} {
		e := &escape{tty: &keystrokes{strings.Split(c.typed, "|")}}
		var got strings.Builder
		buf := make([]byte, 6)
		var err error
		for err == nil {
			var n int
			n, err = e.Read(buf)
			got.Write(buf[:n])
		}
		if got.String() != c.want || errors.Is(err, vmm.ErrLeave) != c.leave {
			t.Errorf("%q gives %q, %v", c.typed, got.String(), err)
		}
	}
}

func TestDiskFlags(t *testing.T) {
	disks, err := parseDisks([]string{"a.img", "dir/b,c.img,ro", "d,rw"})
	if err != nil || len(disks) != 3 || disks[0] != (state.Disk{Path: "a.img"}) ||
		disks[1] != (state.Disk{Path: "dir/b,c.img", ReadOnly: true}) ||
		disks[2] != (state.Disk{Path: "d,rw"}) {
		t.Errorf("%+v, %v", disks, err)
	}
	for _, bad := range []string{"", ",ro"} {
		if _, err := parseDisks([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
