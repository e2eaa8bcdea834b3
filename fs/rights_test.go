package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func number(n uint32) *uint32 { return &n }

// aclText is a list as getfacl would print it, in one line.
func aclText(b []byte) string {
	names := map[uint16]string{aclUserObj: "u:", aclUser: "u", aclGroupObj: "g:", aclGroup: "g",
		aclMask: "m:", aclOther: "o:"}
	var out []string
	for b = b[aclHeader:]; len(b) > 0; b = b[aclEntry:] {
		tag, perm := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:])
		name := names[tag]
		if tag == aclUser || tag == aclGroup {
			name += fmt.Sprint(binary.LittleEndian.Uint32(b[4:])) + ":"
		}
		out = append(out, fmt.Sprintf("%s%o", name, perm))
	}
	return strings.Join(out, " ")
}

// What the kernel is told of each kind of node. The bits of the group are the mask where there is a list;
// then those of the owning group are in the list.
func TestGuard(t *testing.T) {
	memory, dir := &node{kind: kindMemory}, &node{kind: kindCheckpoint}
	clone, owned := &node{kind: kindCloneMem}, &node{kind: kindCloneMem}
	m := new(memoryFile)
	m.owner.Store(&fuse.Owner{Uid: 7})
	owned.mem.Store(m)
	root, thaw := fuse.Owner{}, fuse.Owner{Uid: 50, Gid: 50}
	for name, c := range map[string]struct {
		rights Rights
		server fuse.Owner
		modes  [3]uint32 // of memory, a directory, a clone
		owner  fuse.Owner
		acl    string // of memory
	}{
		"alone":  {Rights{}, root, [3]uint32{0o400, 0o500, 0o600}, root, ""},
		"others": {Rights{Others: true}, thaw, [3]uint32{0o444, 0o555, 0o666}, thaw, ""},
		"user": {Rights{Users: []uint32{9, 3, 9}}, root, [3]uint32{0o440, 0o550, 0o660}, root,
			"u:4 u3:4 u9:4 g:0 m:4 o:0"},
		"group": {Rights{Groups: []uint32{8}}, thaw, [3]uint32{0o440, 0o550, 0o660}, thaw,
			"u:4 g:0 g8:4 m:4 o:0"},
		"shown": {Rights{UID: number(9)}, root, [3]uint32{0o400, 0o500, 0o600}, fuse.Owner{Uid: 9}, ""},
		"shown by another": {Rights{UID: number(9)}, thaw, [3]uint32{0o440, 0o550, 0o660},
			fuse.Owner{Uid: 9, Gid: 50}, "u:4 u50:4 g:0 m:4 o:0"},
		"shown group": {Rights{GID: number(9)}, thaw, [3]uint32{0o440, 0o550, 0o660},
			fuse.Owner{Uid: 50, Gid: 9}, ""},
		"mode": {Rights{GID: number(9), Mode: number(0o404)}, root, [3]uint32{0o404, 0o505, 0o606},
			fuse.Owner{Gid: 9}, ""},
		"all": {Rights{UID: number(1), GID: number(2), Mode: number(0o040), Users: []uint32{3},
			Groups: []uint32{4}}, thaw, [3]uint32{0o040, 0o050, 0o060}, fuse.Owner{Uid: 1, Gid: 2},
			"u:0 u3:4 u50:4 g:4 g4:4 m:4 o:0"},
	} {
		s := &Server{guard: newGuard(c.rights, c.server)}
		for i, n := range []*node{memory, dir, clone} {
			if got := s.mode(n) & 0o777; got != c.modes[i] {
				t.Errorf("%s: node %d has mode %o, want %o", name, i, got, c.modes[i])
			}
		}
		if got := s.mode(owned) & 0o777; got != 0o600 {
			t.Errorf("%s: a clone that is somebody's has mode %o", name, got)
		}
		if s.guard.owner != c.owner {
			t.Errorf("%s: shown as those of %v", name, s.guard.owner)
		}
		got := ""
		if s.guard.listed(memory) {
			got = aclText(s.guard.acl(memory))
		}
		if got != c.acl {
			t.Errorf("%s: list %q, want %q", name, got, c.acl)
		}
		if c.rights.Shared() != (name != "alone") {
			t.Errorf("%s: shared: %v", name, c.rights.Shared())
		}
	}
}

// mayRead is what a user may do, by the words of Rights alone.
func mayRead(r Rights, uid, gid uint32, groups []uint32) bool {
	in := func(g uint32) bool { return g == gid || slices.Contains(groups, g) }
	if uid == 0 || r.Others || slices.Contains(r.Users, uid) || slices.ContainsFunc(r.Groups, in) {
		return true
	}
	if r.UID != nil && *r.UID == uid {
		return true
	}
	return r.GID != nil && in(*r.GID)
}

// The kernel lets in whom Rights say, and nobody else, whoever he is: any rights, any user.
func TestRightsByTheKernel(t *testing.T) {
	asRoot(t)
	ids := []uint32{0, nobody, other, 60001, 60002}
	pick := func() uint32 { return ids[1+rand.IntN(len(ids)-1)] }
	some := func() (list []uint32) {
		for range rand.IntN(3) {
			list = append(list, pick())
		}
		return list
	}
	maybe := func() *uint32 {
		if rand.IntN(3) > 0 {
			return nil
		}
		return number(pick())
	}
	x := spec{Name: "a", Pages: 16, Seed: 1, Files: map[string]string{"state": "cpu"}}
	for range 3 {
		r := Rights{Users: some(), Groups: some(), UID: maybe(), GID: maybe()}
		if !r.Shared() {
			continue // root, and him alone
		}
		b := mounted(t, newFakeStore(x), Options{Rights: r})
		for range 4 {
			uid, gid, groups := ids[rand.IntN(len(ids))], ids[rand.IntN(len(ids))], some()
			c := startClient(t, b.abort, &syscall.SysProcAttr{Credential: &syscall.Credential{
				Uid: uid, Gid: gid, Groups: groups,
			}})
			for _, path := range []string{"a/memory", "a/state", "a/info.json", "a/stats.json",
				"a/clones/" + fmt.Sprint(uid, gid) + "/memory"} {
				want := unix.Errno(0)
				if !mayRead(r, uid, gid, groups) {
					want = unix.EACCES
				}
				path = strings.ReplaceAll(path, " ", "-")
				if res := c.try(request{Op: "open", Path: b.path(path)}); res.Errno != want {
					t.Errorf("%s: %s opens %s: %q, want %v", describe(r), describe(uid, gid, groups), path,
						res.Err, want)
				}
			}
		}
	}
}

func describe(v ...any) string {
	var words []string
	for _, v := range v {
		if r, ok := v.(Rights); ok {
			v = fmt.Sprint("users ", r.Users, " groups ", r.Groups)
			for _, id := range []*uint32{r.UID, r.GID} {
				if id != nil {
					v = fmt.Sprint(v, " shown ", *id)
				}
			}
		}
		words = append(words, fmt.Sprint(v))
	}
	return strings.Join(words, "/")
}

// A mount that somebody else makes and hands over is served as any other, and this process is root's here, so
// it also ends as any other.
func TestMounter(t *testing.T) {
	asRoot(t)
	x := wsSpec()
	dir := mountDir(t)
	o := Options{Log: testLog(t)}
	o.Mounter = func(context.Context) (int, error) {
		return MountFor(dir, Mounting{Server: self(), Source: "thaw"})
	}
	srv, err := Mount(t.Context(), newFakeStore(x), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	c := startClient(t, func() { Abort(dir) }, nil)
	fd := c.open(dir+"/a/memory", unix.O_RDONLY)
	c.do(request{Op: "readall", FD: fd, Len: 1 << 20, Spec: &x})
	c.close(fd)
	if err := srv.Unmount(t.Context()); err != nil {
		t.Error(err)
	}
	o.Mounter = func(context.Context) (int, error) { return -1, os.ErrPermission }
	if _, err := Mount(t.Context(), newFakeStore(x), dir, o); !errors.Is(err, os.ErrPermission) {
		t.Errorf("who mounts fails: %v", err)
	}
	// It says that it has mounted, and has not.
	o.Mounter = func(context.Context) (int, error) { return unix.Open("/dev/fuse", unix.O_RDWR, 0) }
	if _, err := Mount(t.Context(), newFakeStore(x), dir, o); err == nil {
		t.Error("a device that nothing is mounted of is served")
	}
	if _, err := FindMount(dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("it is mounted: %v", err)
	}
}
