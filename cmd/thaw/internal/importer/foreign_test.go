package importer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss/pagetable"
)

// limeDump is a dump of some pages at an address.
func limeDump(at uint64, pages []byte) []byte {
	var b bytes.Buffer
	b.WriteString("EMiL\x01\x00\x00\x00")
	for _, x := range []uint64{at, at + uint64(len(pages)) - 1, 0} {
		for range 8 {
			b.WriteByte(byte(x))
			x >>= 8
		}
	}
	b.Write(pages)
	return b.Bytes()
}

// TestErrorsOfStreams: what the store says of a stream's pages is not taken for a fault of the stream; nor is
// an interrupt. A fault of the stream is one of the image.
func TestErrorsOfStreams(t *testing.T) {
	dump := limeDump(0, make([]byte, 4<<20))
	gone := errors.New("gone")
	for name, c := range map[string]struct {
		data []byte
		put  error
		end  bool
		want error
		code exitcode.Code
	}{
		"disk full":   {data: dump, put: syscall.ENOSPC, want: syscall.ENOSPC},
		"bare":        {data: make([]byte, 4<<20), put: syscall.ENOSPC, want: syscall.ENOSPC},
		"interrupted": {data: dump, end: true, want: gone},
		"cut":         {data: dump[:len(dump)-1], code: exitcode.NotImage},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		src, err := OpenStream("stream", bytes.NewReader(c.data), false)
		if err != nil {
			t.Fatal(err)
		}
		_, err = src.Stream.Read(ctx, func(uint64, []byte) error {
			if c.end {
				cancel(gone)
			}
			return c.put
		})
		code, _, given := exitcode.Of(err)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || given != (c.want == nil) ||
			given && code != c.code {
			t.Errorf("%s: %v, code %d", name, err, code)
		}
		cancel(nil)
		src.Close()
	}
}

// TestInterruptedOpen: a file that is gone through to find its pages is left when the command is to end, and
// that is not taken for a fault of the file.
func TestInterruptedOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(path, limeDump(0, make([]byte, 4<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Open(ctx, path, Options{})
	if _, _, given := exitcode.Of(err); !errors.Is(err, context.Canceled) || given {
		t.Errorf("%v", err)
	}
}

// TestForeignInfo: what is known of a dump is in info.json, for the layout by page tables too.
func TestForeignInfo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump")
	dump := limeDump(1<<20, make([]byte, 2<<20))
	if err := os.WriteFile(path, dump, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	piped, err := OpenStream("stream", bytes.NewReader(dump), false)
	if err != nil {
		t.Fatal(err)
	}
	defer piped.Close()
	end, err := piped.Stream.Read(t.Context(), func(uint64, []byte) error { return nil })
	if err != nil || end.Size != 3<<20 {
		t.Fatalf("%+v, %v", end, err)
	}
	for _, info := range []json.RawMessage{file.Info, end.Info} {
		paging, err := pagetable.ParseInfo(info)
		want := pagetable.Region{GPA: 1 << 20, Bytes: 2 << 20, Offset: 1 << 20}
		if err != nil || len(paging.Regions) != 1 || paging.Regions[0] != want {
			t.Errorf("%s: %+v, %v", info, paging, err)
		}
		var doc struct {
			Bytes    int64 `json:"memory_bytes"`
			Imported struct {
				Format     string
				Restorable bool
			}
		}
		err = json.Unmarshal(info, &doc)
		if err != nil || doc.Bytes != 3<<20 || doc.Imported.Format != "lime" || doc.Imported.Restorable {
			t.Errorf("%s: %+v, %v", info, doc, err)
		}
	}
}

// TestDiffOverCheckpoint: a diff is imported over a checkpoint of the store, wherever that has zeros; one
// that is not there, or has another size, is refused.
func TestDiffOverCheckpoint(t *testing.T) {
	const pages = 2000
	dir := t.TempDir()
	store, err := index.Open(t.Context(), filepath.Join(dir, "store"), index.OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	old := make([]byte, pages*index.PageSize)
	for i := range pages {
		if i%7 < 4 {
			copy(old[i*index.PageSize:], strings.Repeat(string(rune('a'+i%20)), 100+i))
		}
	}
	write := func(name string, data []byte, holes func(page int) bool) string {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(data) / index.PageSize {
			if b := data[i*index.PageSize : (i+1)*index.PageSize]; !holes(i) {
				if _, err := f.WriteAt(b, int64(i*index.PageSize)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := errors.Join(f.Truncate(int64(len(data))), f.Close()); err != nil {
			t.Fatal(err)
		}
		return path
	}
	never := func(int) bool { return false }
	run := func(path, name, parent string) error {
		src, err := Open(t.Context(), path, optionsFor(parent))
		if err != nil {
			return err
		}
		defer src.Close()
		r := Request{Name: name, Parent: parent, Log: slog.New(slog.DiscardHandler)}
		_, err = src.Import(t.Context(), store, r)
		return err
	}
	if err := run(write("old", old, never), "old", ""); err != nil {
		t.Fatal(err)
	}
	if err := run(write("small", old[:index.PageSize], never), "small", ""); err != nil {
		t.Fatal(err)
	}
	now := bytes.Clone(old)
	changed := func(i int) bool { return i%11 == 0 || i > 500 && i < 600 }
	for i := range pages {
		if changed(i) {
			clear(now[i*index.PageSize : (i+1)*index.PageSize])
			if i%2 == 0 {
				copy(now[i*index.PageSize:], "changed")
			}
		}
	}
	diff := write("diff", now, func(i int) bool { return !changed(i) })
	if err := run(diff, "now", "old"); err != nil {
		t.Fatal(err)
	}
	m, err := store.OpenImage(t.Context(), "now")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	got := make([]byte, len(now))
	if err := m.ReadRange(0, got); err != nil || !bytes.Equal(got, now) {
		t.Errorf("the diff over its parent is not the memory: %v", err)
	}
	if err := run(diff, "other", "none"); !errors.Is(err, index.ErrNotFound) {
		t.Errorf("over a parent that is not there: %v", err)
	}
	err = run(diff, "other", "small")
	if code, _, _ := exitcode.Of(err); code != exitcode.NotImage {
		t.Errorf("over one of another size: %v", err)
	}
}

func optionsFor(parent string) (o Options) {
	o.Diff = parent != ""
	return o
}
