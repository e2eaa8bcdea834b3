package fs

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	nobody = 65534
	other  = 65533
)

func as(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}

// A clone belongs to the user who opens it first, to read and to write. Others may not open it, not even
// root: root's machine would read pages that the owner discards as zeros, and end when the owner writes.
func TestCloneOwner(t *testing.T) {
	asRoot(t)
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{Rights: Rights{Others: true}})
	one, two, admin := startClient(t, b.abort, as(nobody)), startClient(t, b.abort, as(other)), b.client()
	path := b.path("a/clones/x/memory")
	for _, c := range []*proc{one, two, admin} {
		if st := c.do(request{Op: "stat", Path: path}); st.Mode&0o777 != 0o666 {
			t.Errorf("a clone without an owner has mode %o", st.Mode)
		}
	}
	fd := one.open(path, unix.O_RDWR)
	for name, c := range map[string]*proc{"owner": one, "other": two, "root": admin} {
		st := c.do(request{Op: "stat", Path: path})
		if st.Mode&0o777 != 0o600 || st.UID != nobody {
			t.Errorf("%s sees mode %o of %d", name, st.Mode, st.UID)
		}
	}
	for name, c := range map[string]*proc{"another user": two, "root": admin} {
		for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY} {
			if res := c.try(request{Op: "open", Path: path, Flags: flags}); res.Errno != unix.EACCES {
				t.Errorf("%s opens it with %#x: %q", name, flags, res.Err)
			}
		}
	}
	one.do(request{Op: "touch", Map: one.mapFile(fd, x.Pages), GFNs: upTo(64), Spec: &x})
	one.close(one.open(path, unix.O_RDWR))
	// Closed, it is still his, until the kernel has forgotten it.
	one.close(fd)
	if res := two.try(request{Op: "open", Path: path}); res.Errno != unix.EACCES {
		t.Errorf("another user opens it when it is closed: %q", res.Err)
	}
	two.close(two.open(b.path("a/clones/y/memory"), unix.O_RDWR))
}

// A write poisons only the clone of the user who wrote.
func TestForeignWrite(t *testing.T) {
	asRoot(t)
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{Rights: Rights{Others: true}, Policy: PolicyLazy})
	evil, c := startClient(t, b.abort, as(nobody)), b.client()
	m := c.mapFile(c.open(b.path("a/clones/vm/memory"), unix.O_RDWR), x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(8), Spec: &x})
	res := evil.try(request{Op: "open", Path: b.path("a/clones/vm/memory"), Flags: unix.O_RDWR})
	if res.Errno != unix.EACCES {
		t.Errorf("open of root's clone: %q", res.Err)
	}
	fd := evil.open(b.path("a/clones/evil/memory"), unix.O_RDWR)
	if res := evil.try(request{Op: "pwrite", FD: fd, Len: 10, Value: 1}); res.Errno != unix.EROFS {
		t.Errorf("write: %q", res.Err)
	}
	eventually(t, "it is poisoned", func() bool { return b.stats("a", "evil").Poisoned })
	c.do(request{Op: "touch", Map: m, GFNs: upTo(x.Pages), Spec: &x})
	if b.stats("a", "vm").Poisoned {
		t.Error("root's clone is poisoned")
	}
}

// Modes are those of the user who mounted, unless others are let in.
func TestModes(t *testing.T) {
	x := wsSpec()
	x.Files = map[string]string{"state": "cpu"}
	for allow, want := range map[bool]map[string]uint32{
		false: {
			"": 0o500, ".thaw": 0o500, ".thaw/metrics": 0o400, "a": 0o500, "a/memory": 0o400,
			"a/state": 0o400, "a/info.json": 0o400, "a/stats.json": 0o400, "a/clones": 0o500,
			"a/clones/x": 0o500, "a/clones/x/memory": 0o600, "a/clones/x/state": 0o400,
		},
		true: {
			"": 0o555, ".thaw": 0o555, ".thaw/metrics": 0o400, "a": 0o555, "a/memory": 0o444,
			"a/state": 0o444, "a/info.json": 0o444, "a/stats.json": 0o444, "a/clones": 0o555,
			"a/clones/x": 0o555, "a/clones/x/memory": 0o666, "a/clones/x/state": 0o444,
		},
	} {
		if allow && os.Geteuid() != 0 {
			continue // fusermount3 wants user_allow_other for that
		}
		b := mounted(t, newFakeStore(x), Options{Rights: Rights{Others: allow}})
		c := b.client()
		for path, mode := range want {
			if got := c.do(request{Op: "stat", Path: b.path(path)}).Mode & 0o777; got != mode {
				t.Errorf("others %v: %q has mode %o, want %o", allow, path, got, mode)
			}
		}
		c.open(b.path("a/clones/x/memory"), unix.O_RDWR)
		if !allow {
			continue
		}
		c = startClient(t, b.abort, as(nobody))
		c.open(b.path("a/memory"), unix.O_RDONLY)
		res := c.try(request{Op: "readfile", Path: b.path(".thaw/metrics")})
		if res.Errno != unix.EACCES {
			t.Errorf("nobody reads the metrics: %q", res.Err)
		}
	}
}

// Of many users who are the first at once, one is; everybody else is refused by the server, whatever
// the kernel has let through.
func TestOwnersAtOnce(t *testing.T) {
	s := testServer(newFakeStore(spec{Name: "a", Pages: 100}))
	defer s.close()
	r := &raw{fuse.NewDefaultRawFileSystem(), s}
	n := s.tree.lookup(s.tree.entry("a").cloneChild("x", fileMemory))
	var wg sync.WaitGroup
	var in atomic.Int64
	for uid := range uint32(50) {
		wg.Go(func() {
			open := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: n.id}}
			open.Uid = 1000 + uid
			switch st := r.Open(nil, &open, new(fuse.OpenOut)); st {
			case fuse.OK:
				in.Add(1)
			case fuse.EACCES:
			default:
				t.Error(st)
			}
		})
	}
	wg.Wait()
	open := fuse.OpenIn{InHeader: fuse.InHeader{NodeId: n.id}}
	open.Uid = ^uint32(0)
	if st := r.Open(nil, &open, new(fuse.OpenOut)); st != fuse.EACCES {
		t.Errorf("a user that is none: %v", st)
	}
	if in.Load() != 1 || s.InUse("a") != 1 {
		t.Errorf("%d users have it, %d files are open", in.Load(), s.InUse("a"))
	}
}
