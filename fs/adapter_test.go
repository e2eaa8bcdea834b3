package fs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
)

// The whole road over a real store: import, lazy restore, record, working set, restore by it; and
// removal under a mount.
func TestIndexStore(t *testing.T) {
	x := spec{Name: "vm", Pages: 8192, ZeroEvery: 3, Seed: 77}
	at := filepath.Join(t.TempDir(), "store")
	store, err := index.Open(t.Context(), at, index.OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	importSpec(t, store, x)
	dir := mountDir(t)
	srv, err := Mount(t.Context(), NewStore(store), dir, Options{RecordWindow: time.Hour, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{Server: srv, t: t, dir: dir}
	t.Cleanup(func() {
		if err := srv.Unmount(context.Background()); err != nil {
			t.Error(err)
			b.abort()
			srv.Wait()
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	c := b.client()
	touched := scattered(x.Pages, 11)
	restore := func() Stats {
		t.Helper()
		fd := c.open(b.path("vm/memory"), unix.O_RDONLY)
		m := c.mapFile(fd, x.Pages)
		c.do(request{Op: "touch", Map: m, GFNs: touched, Spec: &x})
		c.do(request{Op: "unmap", Map: m})
		c.close(fd)
		return b.stats("vm", "")
	}
	if st := restore(); st.LazyPages != uint64(len(touched)) || st.PrefetchedPages != 0 {
		t.Errorf("lazy: %+v", st.Counters)
	}
	set, err := srv.Record(t.Context(), "vm", RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := set.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	var runs []index.Run
	for _, r := range set.Runs {
		runs = append(runs, index.Run{GFN: r.GFN, Count: r.Count})
	}
	if _, err := store.SetWorkingSet(t.Context(), "vm", text.Bytes(), runs); err != nil {
		t.Fatal(err)
	}
	if err := srv.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := c.do(request{Op: "readfile", Path: b.path("vm/working-set")}).Data
	if !bytes.Equal(got, text.Bytes()) {
		t.Errorf("working-set is %q", got)
	}
	for _, policy := range []Policy{PolicyWorkingSetFull, PolicyEager} {
		srv.SetPolicy(policy)
		if err := srv.Drop(t.Context(), "vm"); err != nil {
			t.Fatal(err)
		}
		want := map[Policy]uint64{
			PolicyWorkingSetFull: uint64(len(touched)), PolicyEager: x.Pages,
		}[policy]
		// The kernel may evict what was brought, when it likes; the server knows of that.
		if st := restore(); st.PrefetchedPages != want || st.LazyPages > st.EvictedPages {
			t.Errorf("%v: %+v, want %d", policy, st.Counters, want)
		}
	}
	fd := c.open(b.path("vm/memory"), unix.O_RDONLY)
	c.do(request{Op: "readall", FD: fd, Len: 1 << 20, Spec: &x})
	if err := store.Remove(t.Context(), "vm"); !errors.Is(err, index.ErrInUse) {
		t.Errorf("removal under a machine: %v", err)
	}
	c.close(fd)
	eventually(t, "it is released", func() bool { return srv.InUse("vm") == 0 })
	srv.CloseIdle()
	if err := store.Remove(t.Context(), "vm"); err != nil {
		t.Errorf("removal: %v", err)
	}
	if err := srv.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if res := c.try(request{Op: "stat", Path: b.path("vm")}); res.Errno != unix.ENOENT {
		t.Errorf("after removal: %q", res.Err)
	}
}

// importSpec puts the memory of a spec into a store.
func importSpec(t testing.TB, store *index.Store, x spec) {
	t.Helper()
	memory := filepath.Join(t.TempDir(), "memory")
	image := make([]byte, x.Pages*PageSize)
	for gfn := range x.Pages {
		x.fillPage(gfn, image[gfn*PageSize:][:PageSize])
	}
	if err := os.WriteFile(memory, image, 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := index.OpenSource(memory)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Import(t.Context(), src, index.ImportOptions{Name: x.Name}); err != nil {
		t.Fatal(err)
	}
}

// A server over a store that it only reads: what a writer does beside it is seen, and nothing of one
// checkpoint is ever served as another's.
func TestReaderStore(t *testing.T) {
	x := spec{Name: "vm", Pages: 256, Seed: 1}
	y := spec{Name: "vm", Pages: 256, Seed: 2}
	at := filepath.Join(t.TempDir(), "store")
	writer, err := index.Open(t.Context(), at, index.OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writer.Close() })
	importSpec(t, writer, x)
	reader, err := index.Open(t.Context(), at, index.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	b := mountedStore(t, NewStore(reader), Options{})
	c := b.client()
	fd := c.open(b.path("vm/memory"), unix.O_RDONLY)
	c.do(request{Op: "pread", FD: fd, Len: PageSize})
	if err := b.Release(t.Context(), "vm"); !errors.Is(err, ErrInUse) {
		t.Errorf("release: %v", err)
	}
	// The command that removes it asks first; here it does not.
	if err := writer.Remove(t.Context(), "vm"); err != nil {
		t.Fatal(err)
	}
	importSpec(t, writer, y)
	c.do(request{Op: "readall", FD: fd, Len: 1 << 16, Spec: &x}) // it keeps what it has
	before := b.tree.entry("vm")
	if _, err := NewStore(reader).OpenImage(t.Context(), *before.info.Load()); err == nil {
		t.Error("the image of a checkpoint that was replaced opens")
	}
	if err := b.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := c.open(b.path("vm/memory"), unix.O_RDONLY)
	c.do(request{Op: "readall", FD: other, Len: 1 << 16, Spec: &y})
	c.do(request{Op: "readall", FD: fd, Len: 1 << 16, Spec: &x})
	c.close(other)
	c.close(fd)
	eventually(t, "it is released", func() bool { return b.Release(t.Context(), "vm") == nil })
	if err := writer.Remove(t.Context(), "vm"); err != nil {
		t.Fatal(err)
	}
	if r := c.try(request{Op: "open", Path: b.path("vm/memory")}); r.Errno != unix.ENOENT {
		t.Errorf("the memory of a checkpoint that was removed: %v, want %v", r.Errno, unix.ENOENT)
	}
}
