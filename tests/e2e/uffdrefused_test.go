package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/firecracker"
	"github.com/thawfs/thaw/tests/internal/image"
)

// TestUffdRefused: a VM that cannot be served is told apart by a word about what is wrong, and is
// killed, since it has handed over its memory and would wait for ever.
func TestUffdRefused(t *testing.T) {
	store, source := storeWith(t, small)
	other := writeImage(t, image.Spec{Pages: small.Pages / 2, Seed: 12})
	lie := func(field string, value int64) []firecracker.Lie {
		return []firecracker.Lie{{Field: field, Value: value}}
	}
	both := func(size int64) []firecracker.Lie {
		return append(lie("page_size", size), lie("page_size_kib", size)...)
	}
	for name, c := range map[string]struct {
		r    firecracker.Request
		want string
	}{
		"no JSON":        {firecracker.Request{Text: "hello"}, "no JSON array"},
		"an object":      {firecracker.Request{Text: `{"a":1}`}, "no JSON array"},
		"a part":         {firecracker.Request{Text: `[{"size":4096,`, Close: true}, "ended after 14 bytes"},
		"too long":       {firecracker.Request{Text: "[" + strings.Repeat(" ", 2<<20)}, "more than"},
		"two messages":   {firecracker.Request{Text: "[] []"}, "follow the message"},
		"two userfaults": {firecracker.Request{Descriptors: 2}, "2 descriptors"},
		"other memory":   {firecracker.Request{Source: other}, "is it this VM's"},
		"larger":         {firecracker.Request{Lies: lie("size", small.Bytes()+4096)}, "beyond"},
		"smaller":        {firecracker.Request{Lies: lie("size", small.Bytes()-4096)}, "bytes of memory"},
		"elsewhere":      {firecracker.Request{Lies: lie("base_host_virt_addr", 4096)}, "no memory there"},
		"not aligned":    {firecracker.Request{Lies: lie("base_host_virt_addr", 4097)}, "multiples"},
		"below zero":     {firecracker.Request{Lies: lie("offset", -4096)}, "no JSON array"},
		"large pages":    {firecracker.Request{Lies: both(8192)}, "pages of 8192"},
		"overlap": {
			firecracker.Request{Splits: quarters(2), Lies: []firecracker.Lie{{Region: 1, Field: "offset"}}},
			"overlap",
		},
		"fork":  {firecracker.Request{Features: firecracker.FeatureFork}, "may fork"},
		"remap": {firecracker.Request{Features: firecracker.FeatureRemap}, "may move"},
	} {
		p := cli.Uffd(t, store, "vm")
		vm := firecracker.Start(t)
		c.r.Op, c.r.Socket = "hand", p.Socket
		if c.r.Source == "" {
			c.r.Source = source
		}
		if a, err := vm.Call(c.r); err == nil && strings.HasPrefix(a.Error, "userfaultfd:") {
			t.Skip(a.Error)
		}
		if err := vm.Killed(ended); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if end := p.FailsAs("bad-handshake"); !strings.Contains(end.Stderr, c.want) {
			t.Errorf("%s: the message is not about %q: %v", name, c.want, end)
		}
	}
}

// TestUffdNoVM: a process that hands over no userfaultfd depends on nobody, and is left alone; one that sends
// nothing is not even noticed.
func TestUffdNoVM(t *testing.T) {
	store, source := storeWith(t, small)
	for _, r := range []firecracker.Request{
		{Text: "hello"},
		{Text: "[]"},
		{Text: "[", Close: true},
		{Text: "[", Descriptors: 1, Close: true}, // it is that of its standard input
	} {
		p := cli.Uffd(t, store, "vm")
		vm := firecracker.Start(t)
		r.Op, r.Socket = "send", p.Socket
		vm.Must(t, r)
		p.FailsAs("bad-handshake")
		vm.Must(t, firecracker.Request{Op: "check"}) // it lives
		vm.End(t)
	}
	p := cli.Uffd(t, store, "vm")
	for range 3 {
		nobody := firecracker.Start(t)
		nobody.Must(t, firecracker.Request{Op: "send", Socket: p.Socket, Close: true})
		nobody.End(t)
	}
	vm := handOver(t, p, source, firecracker.Request{})
	vm.Must(t, firecracker.Request{Op: "check"})
	vm.End(t)
	p.Report()
}

// TestUffdSecondVM: another VM that comes to a socket is not left to hang: it is killed, whether its
// pager serves another one or has failed.
func TestUffdSecondVM(t *testing.T) {
	store, source := storeWith(t, small)
	p := cli.Uffd(t, store, "vm")
	first := firecracker.Start(t)
	first.Must(t, firecracker.Request{Op: "send", Socket: p.Socket, Text: "["})
	second := handOver(t, p, source, firecracker.Request{})
	first.End(t)
	p.FailsAs("bad-handshake")
	if err := second.Killed(ended); err != nil {
		t.Fatal(err)
	}
	p = cli.Uffd(t, store, "vm")
	vm := handOver(t, p, source, firecracker.Request{})
	vm.Must(t, firecracker.Request{Op: "check"})
	// It may have come before the door was closed.
	late := firecracker.Start(t)
	a, err := late.Call(firecracker.Request{Op: "hand", Socket: p.Socket, Source: source})
	if err == nil && a.Error == "" {
		err = late.Killed(ended)
	}
	if err != nil && !errors.Is(err, firecracker.ErrEnded) {
		t.Error(err)
	}
	vm.Must(t, firecracker.Request{Op: "live", Threads: 4, Steps: 50})
	vm.End(t)
	p.Report()
}

// TestUffdSocket: the socket is the user's alone, one that a dead pager has left is replaced, and one
// that is in use is not.
func TestUffdSocket(t *testing.T) {
	store, source := storeWith(t, small)
	p := cli.Uffd(t, store, "vm")
	if st, err := os.Stat(p.Socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st.Mode(), err)
	}
	cli.Fails(t, "exists", "uffd", store, "vm", "--socket", p.Socket)
	p.Kill()
	again := cli.UffdAt(t, p.Socket, store, "vm", "--restore=lazy")
	vm := handOver(t, again, source, firecracker.Request{})
	vm.Must(t, firecracker.Request{Op: "check"})
	if _, err := os.Stat(p.Socket); err == nil {
		t.Error("the socket is there although a VM is served")
	}
	vm.End(t)
	again.Report()
}

// TestUffdDamagedPage: a page that cannot be read ends the VM that needs it, and nobody else; the error
// names it.
func TestUffdDamagedPage(t *testing.T) {
	store, source := storeWith(t, small)
	pack := packFiles(t, store)[0]
	st, err := os.Stat(pack)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, pack, st.Size()/2)
	p := cli.Uffd(t, store, "vm")
	vm := handOver(t, p, source, firecracker.Request{})
	a, err := vm.Call(firecracker.Request{Op: "check"})
	if len(a.Wrong) > 0 {
		t.Fatalf("%d pages are wrong", len(a.Wrong))
	}
	if !errors.Is(err, firecracker.ErrEnded) {
		t.Fatalf("the VM has read all of its memory: %v", err)
	}
	if err := vm.Killed(ended); err != nil {
		t.Fatal(err)
	}
	end := p.FailsAs("memory-lost")
	var page uint64
	at := strings.Index(end.Stderr, "page ")
	if _, err := fmt.Sscanf(end.Stderr[max(at, 0):], "page %d cannot be given to the VM", &page); err != nil {
		t.Errorf("no page is named: %v", end)
	}
	// Who does not touch it is served.
	p = cli.Uffd(t, store, "vm")
	vm = handOver(t, p, source, firecracker.Request{})
	vm.Must(t, firecracker.Request{Op: "touch", GFNs: []uint64{(page + small.Pages/2) % small.Pages}})
	vm.End(t)
	p.Report()
}

// TestUffdMountDies: when the server of the mount dies that has the memory, the VM is killed when it
// needs a page.
func TestUffdMountDies(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store, "--restore=lazy")
	p := cli.Uffd(t, m.Dir, "vm", "--restore=lazy")
	vm := handOver(t, p, source, firecracker.Request{})
	vm.Must(t, firecracker.Request{Op: "live", Threads: 4, Steps: 20})
	m.Kill()
	start := time.Now()
	a, err := vm.Call(firecracker.Request{Op: "check"})
	if len(a.Wrong) > 0 || !errors.Is(err, firecracker.ErrEnded) {
		t.Fatalf("%d pages are wrong, %v", len(a.Wrong), err)
	}
	if err := vm.Killed(ended); err != nil {
		t.Fatal(err)
	}
	p.FailsAs("memory-lost")
	t.Logf("killed after %v", time.Since(start))
	cli.OK(t, "umount", "--abort", m.Dir)
}
