package fs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/wss"
)

// What copies an image or looks at it is not a machine: its reads are refused as a working set, with its
// name, unless they are wanted all the same.
func TestRecordOfNoMachine(t *testing.T) {
	x := spec{Name: "a", Pages: 2048, Seed: 1, ZeroEvery: 4}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	comm := filepath.Base(self)
	comm = comm[:min(len(comm), 15)]
	for name, c := range map[string]struct {
		read func(c *proc, fd int)
		why  string
	}{
		"head": {func(c *proc, fd int) {
			c.do(request{Op: "pread", FD: fd, Len: PageSize})
			c.close(fd)
		}, "read 1 pages"},
		"file": {func(c *proc, fd int) {
			c.do(request{Op: "pread", FD: fd, Len: 1 << 20})
			c.close(fd)
		}, "pages in sequence"},
		"copy": {func(c *proc, fd int) { // still open, or for long
			c.do(request{Op: "readall", FD: fd, Len: 128 << 10, Spec: &x})
		}, "from end to end"},
		"sparse copy": {func(c *proc, fd int) { // as cp does
			c.do(request{Op: "readdata", FD: fd})
		}, "from end to end"},
	} {
		t.Run(name, func(t *testing.T) {
			b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
			p := b.client()
			c.read(p, p.open(b.path("a/memory"), unix.O_RDONLY))
			if !strings.HasSuffix(name, "copy") {
				eventually(t, "it is closed", func() bool { return b.InUse("a") == 0 })
				// A busy host may have taken longer than a reader has it open.
				ep := b.tree.entry("a").epoch.Load()
				ep.readers.released(ep.base.Add(time.Duration(ep.started.Load()) + time.Millisecond))
			}
			_, err := b.Record(t.Context(), "a", RecordOptions{})
			var no *RecordError
			if !errors.Is(err, ErrNotMachine) || !errors.As(err, &no) {
				t.Fatalf("record: %v", err)
			}
			if !strings.Contains(no.Why, c.why) || len(no.Readers) != 1 {
				t.Errorf("%v, %v", err, no.Readers)
			}
			if len(no.Readers) > 0 && (no.Readers[0].Command == "" || no.Readers[0].PID == 0) {
				t.Errorf("reader %+v, want %s", no.Readers, comm)
			}
			set, err := b.Record(t.Context(), "a", RecordOptions{Force: true})
			if err != nil || set.Pages() == 0 {
				t.Errorf("by force: %v", err)
			}
		})
	}
}

// What a machine could have read is a record.
func TestRecordOfMachine(t *testing.T) {
	x := spec{Name: "a", Pages: 2048, Seed: 1}
	for name, read := range map[string]func(c *proc, fd int){
		"a few pages, and it runs": func(c *proc, fd int) {
			c.do(request{Op: "touch", Map: c.mapFile(fd, x.Pages), GFNs: []uint64{7}, Spec: &x})
		},
		"in no order, for a moment": func(c *proc, fd int) {
			m := c.mapFile(fd, x.Pages)
			c.do(request{Op: "touch", Map: m, GFNs: scattered(x.Pages, 7), Spec: &x})
			c.do(request{Op: "unmap", Map: m})
			c.close(fd)
		},
		"all of it, page by page": func(c *proc, fd int) {
			c.do(request{Op: "touch", Map: c.mapFile(fd, x.Pages), GFNs: upTo(x.Pages), Spec: &x})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := mounted(t, newFakeStore(x), Options{RecordWindow: time.Hour})
			p := b.client()
			read(p, p.open(b.path("a/memory"), unix.O_RDONLY))
			if _, err := b.Record(t.Context(), "a", RecordOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// One reader in two is a machine: its reads count.
func TestDoubt(t *testing.T) {
	start := time.Now()
	page := &wss.Set{Runs: []wss.Run{{GFN: 0, Count: 1}}}
	var r readers
	r.opened(Reader{PID: 1, Command: "one"})
	r.read(0, 1)
	if why := r.doubt(start, page, 100); why != "" {
		t.Errorf("while it is open: %s", why)
	}
	r.released(start.Add(time.Millisecond))
	if why := r.doubt(start, page, 100); !strings.Contains(why, "one (1)") {
		t.Errorf("one page, closed: %q", why)
	}
	r.opened(Reader{PID: 2, Command: "two"})
	r.released(start.Add(2 * time.Millisecond))
	if why := r.doubt(start, page, 100); why != "" {
		t.Errorf("two of them: %s", why)
	}
	// What a short look reads ahead is answered out of order.
	var look readers
	look.opened(Reader{PID: 3, Command: "dd"})
	part := &wss.Set{}
	for _, first := range []uint64{8, 0, 24, 16, 40, 32} {
		look.read(first, 8)
		part.Runs = append(part.Runs, wss.Run{GFN: first, Count: 8})
	}
	look.released(start.Add(time.Millisecond))
	if why := look.doubt(start, part, 1000); !strings.Contains(why, "48 pages in sequence") {
		t.Errorf("a part, read out of order: %q", why)
	}
	part.Runs[0].GFN = 500
	if why := look.doubt(start, part, 1000); why != "" {
		t.Errorf("pages here and there: %s", why)
	}
	var long readers
	long.opened(Reader{PID: 3})
	long.released(start.Add(briefly))
	if why := long.doubt(start, page, 100); why != "" {
		t.Errorf("for a second: %s", why)
	}
	for i := range uint32(2 * maxReaders) {
		r.opened(Reader{PID: i})
	}
	if n := len(r.names()); n != maxReaders {
		t.Errorf("%d readers are kept", n)
	}
}
