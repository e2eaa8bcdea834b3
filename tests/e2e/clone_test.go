package e2e

import (
	"testing"

	"github.com/thawfs/thaw/tests/internal/cli"
	"github.com/thawfs/thaw/tests/internal/client"
)

// TestMemoryIsReadOnly: nobody can write to the image that all machines share.
func TestMemoryIsReadOnly(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store)
	c := m.Client(t)
	for what, r := range map[string]client.Request{
		"open O_RDWR": {Op: "open", Path: m.Path("vm/memory"), Map: client.Map{ReadWrite: true}},
		"shared writable mapping": {Op: "open", Path: m.Path("vm/memory"),
			Map: client.Map{Writable: true}},
	} {
		if a := c.Do(t, r); a.Errno != "EROFS" && a.Errno != "EACCES" {
			t.Errorf("%s: %q (%s), want EROFS or EACCES", what, a.Errno, a.Error)
		}
	}
	c.Open(t, m.Path("vm/memory"), client.Map{Private: true, Writable: true})
	for _, r := range []client.Request{{Op: "write", Length: 8}, {Op: "truncate"}} {
		if a := c.Do(t, r); a.Errno == "" {
			t.Errorf("%s on memory succeeded", r.Op)
		}
	}
	// A private mapping is the machine's own: it may write, and others see nothing of it.
	c.Must(t, client.Request{Op: "store", Count: small.Pages, Byte: 0xbd})
	other := m.Client(t)
	other.Open(t, m.Path("vm/memory"), client.Map{})
	other.Right(t, client.Request{Count: small.Pages, Source: source})
}

// TestSharedWriterPoisonsOnlyItsClone: a client that maps a clone shared and writes to it — which
// clones cannot keep yet — changes nothing that any other mapping reads, before, during and after,
// and its own clone answers with errors from then on instead of bytes of either kind.
func TestSharedWriterPoisonsOnlyItsClone(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store, "--restore=lazy")
	all := client.Request{Count: small.Pages, Order: "random", Seed: 5, Source: source}
	half := client.Request{Count: small.Pages / 2, Source: source}

	image, other, same, writer := m.Client(t), m.Client(t), m.Client(t), m.Client(t)
	image.Open(t, m.Path("vm/memory"), client.Map{})
	other.Open(t, m.Path("vm/clones/other/memory"), client.Map{ReadWrite: true, Writable: true})
	same.Open(t, m.Path("vm/clones/mine/memory"), client.Map{ReadWrite: true, Private: true, Random: true})
	writer.Open(t, m.Path("vm/clones/mine/memory"), client.Map{ReadWrite: true, Writable: true})
	for _, c := range []*client.Client{image, other, same, writer} {
		c.Right(t, half)
	}

	writer.Must(t, client.Request{Op: "store", First: 100, Count: 300, Byte: 0xbd})
	image.Right(t, all)
	other.Right(t, all)
	if a := writer.Do(t, client.Request{Op: "msync"}); a.Errno == "" {
		t.Error("msync of pages that cannot be kept succeeded")
	}
	image.Right(t, all)
	other.Right(t, all)

	// The poisoned clone: pages that were not read yet are lost, not wrong.
	a := same.Must(t, client.Request{Op: "touch", First: small.Pages / 2, Count: small.Pages / 2,
		Source: source})
	if uint64(len(a.Lost)) != a.Pages {
		t.Errorf("of %d unread pages of the poisoned clone %d are lost, %d wrong", a.Pages,
			len(a.Lost), len(a.Wrong))
	}
	if a := same.Do(t, client.Request{Op: "pread", Offset: 100 * 4096, Length: 4096}); a.Errno != "EIO" {
		t.Errorf("read of the poisoned clone: %q (%s), want EIO", a.Errno, a.Error)
	}
	fresh := m.Client(t)
	if a := fresh.Do(t, client.Request{Op: "open", Path: m.Path("vm/clones/mine/memory"),
		Map: client.Map{Private: true, Random: true}}); a.Errno == "" {
		a = fresh.Must(t, client.Request{Op: "touch", First: 100, Count: 300, Source: source})
		if uint64(len(a.Lost)) != a.Pages {
			t.Errorf("a new mapping of the poisoned clone: %d of %d pages lost, %d wrong", len(a.Lost),
				a.Pages, len(a.Wrong))
		}
	}
	// A clone with a new name is a new machine.
	fresh.Open(t, m.Path("vm/clones/third/memory"), client.Map{ReadWrite: true, Private: true})
	fresh.Right(t, all)
	image.Right(t, all)
	other.Right(t, all)
}

// TestWriteToCloneIsRefused: write(2) fails with EROFS, and only that clone suffers.
func TestWriteToCloneIsRefused(t *testing.T) {
	store, source := storeWith(t, small)
	m := cli.Mount(t, store, "--restore=lazy")
	c := m.Client(t)
	c.Open(t, m.Path("vm/clones/a/memory"), client.Map{ReadWrite: true, Private: true, Writable: true})
	c.Right(t, client.Request{Count: small.Pages / 2, Source: source})
	c.Must(t, client.Request{Op: "store", Count: small.Pages / 4, Byte: 1}) // private: no WRITE
	c.Open(t, m.Path("vm/clones/a/memory"), client.Map{ReadWrite: true, Private: true, Writable: true})
	c.Right(t, client.Request{Count: small.Pages, Source: source})
	if a := c.Do(t, client.Request{Op: "write", Offset: 4096, Length: 4096, Byte: 7}); a.Errno != "EROFS" {
		t.Errorf("write: %q (%s), want EROFS", a.Errno, a.Error)
	}
	if a := c.Do(t, client.Request{Op: "truncate"}); a.Errno == "" {
		t.Error("truncate of a clone succeeded")
	}
	b := m.Client(t)
	b.Open(t, m.Path("vm/clones/b/memory"), client.Map{ReadWrite: true, Private: true})
	b.Right(t, client.Request{Count: small.Pages, Source: source})
}
