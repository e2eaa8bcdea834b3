package fs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestTree(t *testing.T) {
	a := spec{Name: "a", Pages: 100, Files: map[string]string{"state": "cpu", "working-set": "ws"}}
	b := mounted(t, newFakeStore(a, spec{Name: "b", Pages: 10}), Options{ControlSocket: "/run/x.sock"})
	c := b.client()
	for dir, want := range map[string][]string{
		"":           {".thaw", "a", "b"},
		".thaw":      {"metrics", "socket"},
		"a":          {"clones", "info.json", "memory", "state", "stats.json", "working-set"},
		"b":          {"clones", "info.json", "memory", "stats.json"},
		"a/clones":   nil,
		"a/clones/x": {"info.json", "memory", "state", "stats.json", "working-set"},
	} {
		got := c.do(request{Op: "readdir", Path: b.path(dir)}).Names
		if d := cmp.Diff(want, sorted(got)); d != "" {
			t.Errorf("%q: %s", dir, d)
		}
	}
	for path, want := range map[string]string{
		"a/state":              "cpu",
		"a/working-set":        "ws",
		"a/clones/7/state":     "cpu",
		"b/info.json":          "{\"name\":\"b\",\"revision\":0}\n",
		"a/clones/7/info.json": "{\"name\":\"a\",\"revision\":0}\n",
	} {
		if got := string(c.do(request{Op: "readfile", Path: b.path(path)}).Data); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	if got := c.do(request{Op: "readlink", Path: b.path(".thaw/socket")}); string(got.Data) != "/run/x.sock" {
		t.Errorf("socket: %q", got.Data)
	}
	if st := c.do(request{Op: "stat", Path: b.path("a/memory")}); st.N != 100*PageSize {
		t.Errorf("memory has %d bytes", st.N)
	}
	if st := c.do(request{Op: "statfs", Path: b.dir}); st.N != 110 {
		t.Errorf("%d blocks", st.N)
	}
	one := c.do(request{Op: "stat", Path: b.path("a/clones/1/memory")}).Ino
	two := c.do(request{Op: "stat", Path: b.path("a/clones/2/memory")}).Ino
	own := c.do(request{Op: "stat", Path: b.path("a/memory")}).Ino
	if one == two || one == own || two == own {
		t.Errorf("inodes %d %d %d", one, two, own)
	}
}

func TestTreeRefuses(t *testing.T) {
	b := mounted(t, newFakeStore(spec{Name: "a", Pages: 100}), Options{})
	c := b.client()
	for _, x := range []struct {
		req  request
		want unix.Errno
	}{
		{request{Op: "open", Path: b.path("a/memory"), Flags: unix.O_RDWR}, unix.EROFS},
		{request{Op: "open", Path: b.path("a/memory"), Flags: unix.O_WRONLY}, unix.EROFS},
		{request{Op: "open", Path: b.path("a/info.json"), Flags: unix.O_RDWR}, unix.EROFS},
		{request{Op: "truncate", Path: b.path("a/memory")}, unix.EROFS},
		{request{Op: "truncate", Path: b.path("a/clones/x/memory")}, unix.EROFS},
		{request{Op: "create", Path: b.path("a/new")}, unix.EROFS},
		{request{Op: "create", Path: b.path("new")}, unix.EROFS},
		{request{Op: "mkdir", Path: b.path("new")}, unix.EROFS},
		{request{Op: "unlink", Path: b.path("a/memory")}, unix.EROFS},
		{request{Op: "access", Path: b.path("a/memory"), Flags: unix.W_OK}, unix.EROFS},
		{request{Op: "getxattr", Path: b.path("a/memory")}, unix.EOPNOTSUPP},
		{request{Op: "stat", Path: b.path("nobody")}, unix.ENOENT},
		{request{Op: "stat", Path: b.path("a/nothing")}, unix.ENOENT},
		{request{Op: "stat", Path: b.path("a/clones/.hidden")}, unix.ENOENT},
		{request{Op: "stat", Path: b.path("a/clones/x/clones")}, unix.ENOENT},
		{request{Op: "stat", Path: b.path("a/memory/x")}, unix.ENOTDIR},
	} {
		if got := c.try(x.req); got.Errno != x.want {
			t.Errorf("%s %s: %v %s, want %v", x.req.Op, x.req.Path, got.Errno, got.Err, x.want)
		}
	}
	c.do(request{Op: "access", Path: b.path("a/clones/x/memory"), Flags: unix.W_OK})
}
