package fs

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (b *bed) refresh(specs ...spec) {
	b.t.Helper()
	b.store.set(specs...)
	if err := b.Refresh(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// Checkpoints come and go under a mount; those that are open go on.
func TestRefresh(t *testing.T) {
	one, two := spec{Name: "one", Pages: 100, Seed: 1}, spec{Name: "two", Pages: 50, Seed: 2}
	b := mounted(t, newFakeStore(one), Options{Policy: PolicyLazy})
	c := b.client()
	list := func() []string {
		return sorted(c.do(request{Op: "readdir", Path: b.dir}).Names)
	}
	if res := c.try(request{Op: "stat", Path: b.path("two/memory")}); res.Errno != unix.ENOENT {
		t.Fatal(res.Err)
	}
	b.refresh(one, two)
	if d := cmp.Diff([]string{".thaw", "one", "two"}, list()); d != "" {
		t.Error(d)
	}
	fd := c.open(b.path("two/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, 50)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(10), Spec: &two})
	if n := b.InUse("two"); n != 1 {
		t.Errorf("%d in use", n)
	}

	b.refresh(one)
	if d := cmp.Diff([]string{".thaw", "one"}, list()); d != "" {
		t.Error(d)
	}
	if res := c.try(request{Op: "open", Path: b.path("two/memory")}); res.Errno != unix.ENOENT {
		t.Errorf("removed: %q", res.Err)
	}
	c.do(request{Op: "touch", Map: m, GFNs: upTo(50), Spec: &two}) // its machine goes on
	c.do(request{Op: "unmap", Map: m})
	c.close(fd)
	eventually(t, "the image of what was removed is closed", func() bool {
		_, open := b.store.opened("two")
		return open == 0
	})
}

// New content under an old name is another file; those who have the old one open keep it.
func TestRefreshReplaced(t *testing.T) {
	old, young := spec{Name: "a", Pages: 100, Seed: 1}, spec{Name: "a", Pages: 60, Seed: 2}
	b := mounted(t, newFakeStore(old), Options{Policy: PolicyLazy})
	c := b.client()
	before := c.do(request{Op: "stat", Path: b.path("a/memory")})
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, 100)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(50), Spec: &old})
	b.refresh(young)
	after := c.do(request{Op: "stat", Path: b.path("a/memory")})
	if before.Ino == after.Ino || after.N != 60*PageSize {
		t.Errorf("before %+v, after %+v", before, after)
	}
	c.do(request{Op: "touch", Map: m, GFNs: upTo(100), Spec: &old})
	fresh := c.mapFile(c.open(b.path("a/memory"), unix.O_RDONLY), 60)
	c.do(request{Op: "touch", Map: fresh, GFNs: upTo(60), Spec: &young})
}

// A checkpoint that gets another name keeps its ID. Whoever still has something of it open by the old name,
// but its memory, does not keep the new one from being used; nor does the old one while it has both.
func TestRefreshRenamed(t *testing.T) {
	old := spec{Name: "old", Pages: 100, Seed: 1, ID: "same"}
	young := old
	young.Name = "young"
	b := mounted(t, newFakeStore(old), Options{Policy: PolicyLazy})
	c := b.client()
	look := func(x spec) {
		t.Helper()
		got := string(c.do(request{Op: "readfile", Path: b.path(x.Name + "/info.json")}).Data)
		if !strings.Contains(got, fmt.Sprintf("%q", x.Name)) {
			t.Errorf("info.json of %s: %s", x.Name, got)
		}
		fd := c.open(b.path(x.Name+"/memory"), unix.O_RDONLY)
		m := c.mapFile(fd, x.Pages)
		c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
		c.do(request{Op: "unmap", Map: m})
		c.close(fd)
	}
	look(old)
	c.open(b.path("old"), unix.O_RDONLY)
	c.open(b.path("old/info.json"), unix.O_RDONLY)
	b.refresh(young)
	look(young)
	b.refresh(old, young)
	look(old)
	look(young)
	b.refresh(young)
	look(young)
	if res := c.try(request{Op: "open", Path: b.path("old/memory")}); res.Errno != unix.ENOENT {
		t.Errorf("the old name: %q", res.Err)
	}
}

// A new working set changes the small files and the next restore, and keeps what is cached.
func TestRefreshWorkingSet(t *testing.T) {
	bare := spec{Name: "a", Pages: 100, Seed: 1, ID: "same"}
	with := bare
	with.Revision, with.WS = 1, [][2]uint64{{10, 20}}
	with.Files = map[string]string{"working-set": "text"}
	b := mounted(t, newFakeStore(bare), Options{})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	c.do(request{Op: "touch", Map: c.mapFile(fd, 100), GFNs: []uint64{50}, Spec: &bare})
	info := string(c.do(request{Op: "readfile", Path: b.path("a/info.json")}).Data)
	c.do(request{Op: "readfile", Path: b.path("a/clones/x/info.json")})
	b.refresh(with)
	for _, path := range []string{"a/info.json", "a/clones/x/info.json"} {
		if now := string(c.do(request{Op: "readfile", Path: b.path(path)}).Data); now == info {
			t.Errorf("%s is the old one: %s", path, now)
		}
	}
	if got := c.do(request{Op: "readfile", Path: b.path("a/working-set")}); string(got.Data) != "text" {
		t.Errorf("working-set: %q", got.Data)
	}
	c.open(b.path("a/memory"), unix.O_RDONLY)
	if got := c.do(request{Op: "cached", FD: fd}).N; got != 21 {
		t.Errorf("%d pages in the page cache, want 21", got)
	}
	if all, _ := b.store.opened("a"); all != 2 {
		t.Errorf("image opened %d times", all)
	}
}

// stats.json and metrics are live, and what one open reads is of one moment.
func TestLiveFiles(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{Policy: PolicyWorkingSetFull})
	c := b.client()
	early := c.open(b.path("a/stats.json"), unix.O_RDONLY)
	fd := c.open(b.path("a/clones/c/memory"), unix.O_RDONLY)
	c.do(request{Op: "touch", Map: c.mapFile(fd, x.Pages), GFNs: []uint64{40}, Spec: &x})
	read := func(data []byte) (st Stats) {
		t.Helper()
		if err := json.Unmarshal(data, &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	for path, want := range map[string]uint64{
		"a/stats.json": 1024, "a/clones/c/stats.json": 1024, "a/clones/d/stats.json": 0,
	} {
		st := read(c.do(request{Op: "readfile", Path: b.path(path)}).Data)
		if st.PrefetchedPages != want || st.Policy != "working-set-full" {
			t.Errorf("%s: %+v", path, st)
		}
		if want > 0 && (st.LazyPages != 1 || st.StallSeconds <= 0 || len(st.Stalls.Buckets) == 0) {
			t.Errorf("%s: %+v", path, st)
		}
	}
	if st := read(c.do(request{Op: "pread", FD: early, Len: 1 << 16}).Data); st.PrefetchedPages != 0 {
		t.Errorf("an open file changes: %+v", st.Counters)
	}
	text := string(c.do(request{Op: "readfile", Path: b.path(".thaw/metrics")}).Data)
	for _, want := range []string{
		"thaw_fs_checkpoints 1\n", "thaw_fs_opens_total 1\n", "thaw_fs_open_memories 1\n",
		"thaw_fs_read_duration_seconds_count 1\n", "thaw_fs_push_bytes_total 4.194304e+06\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics have no %q:\n%s", want, text)
		}
	}
}

// A file that the kernel still has open is read as what it was opened as, or not at all.
func TestReplacedFile(t *testing.T) {
	a := spec{Name: "a", Pages: 10, Seed: 1, Files: map[string]string{"state": "one", "working-set": "ws one"}}
	store := newFakeStore(a)
	r := newHandRig(t, store, Options{})
	read := func(n *node) (string, fuse.Status) {
		in := &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: n.id}, Size: PageSize}
		res, st := r.raw.Read(nil, in, make([]byte, PageSize))
		if !st.Ok() {
			return "", st
		}
		text, _ := res.Bytes(make([]byte, PageSize))
		return string(text), st
	}
	e := r.tree.entry("a")
	state, set := r.tree.lookup(e.child("state")), r.tree.lookup(e.child("working-set"))
	other := a
	other.Revision, other.Files = 1, map[string]string{"state": "one", "working-set": "ws two"}
	store.set(other)
	for _, refreshed := range []bool{false, true} {
		if refreshed {
			if err := r.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if text, st := read(set); st != fuse.EIO {
			t.Errorf("the old working set reads %q, %v", text, st)
		}
		if text, st := read(state); text != "one" {
			t.Errorf("the state reads %q, %v", text, st)
		}
	}
	other.Seed, other.ID, other.Files = 2, "", map[string]string{"state": "two", "working-set": "ws two"}
	store.set(other)
	if text, st := read(state); st != fuse.EIO {
		t.Errorf("the state of another checkpoint reads %q, %v", text, st)
	}
}

// An open of a checkpoint that was replaced a moment ago, which the tree does not know yet, is stale: the
// kernel looks the name up again, and finds the new one if the tree has it by then. It is no I/O error, which
// would mean damage.
func TestOpenOfReplaced(t *testing.T) {
	store := newFakeStore(spec{Name: "a", Pages: 10, Seed: 1})
	store.onOpen = func(string) error { return ErrReplaced }
	b := mounted(t, store, Options{Policy: PolicyLazy})
	c := b.client()
	for _, path := range []string{"a/memory", "a/clones/1/memory"} {
		if res := c.try(request{Op: "open", Path: b.path(path)}); res.Errno != unix.ESTALE {
			t.Errorf("%s: %q, want ESTALE", path, res.Err)
		}
	}
}
