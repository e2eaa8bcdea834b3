package fs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A server that is killed takes its mount's bytes with it at once: what is not in the page cache is
// SIGBUS or ENOTCONN, what is there stays right. Nothing hangs.
func TestServerKilled(t *testing.T) {
	x := wsSpec()
	r := startServer(t, remoteConfig{Dir: mountDir(t), Specs: []spec{x}, Policy: PolicyWorkingSetFull}, nil)
	c := startClient(t, r.abort, nil)
	fd := c.open(r.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	ws := (&fakeImage{spec: x}).workingSet()
	r.kill()
	res := c.try(request{Op: "touch", Map: m, GFNs: ws, Spec: &x})
	// The kernel may have evicted a few meanwhile: one that reclaims before it has to does.
	if res.Bus > len(ws)/10 || res.Bus == 0 && res.Err != "" {
		t.Errorf("of %d pages that were there %d are lost: %s", len(ws), res.Bus, res.Err)
	}
	res = c.try(request{Op: "touch", Map: m, GFNs: []uint64{40, 4095}})
	if res.Bus != 2 {
		t.Errorf("%d SIGBUS, want 2: %s", res.Bus, res.Err)
	}
	res = c.try(request{Op: "pread", FD: fd, Off: 40 * PageSize, Len: PageSize})
	if res.Errno != unix.ENOTCONN && res.Errno != unix.ECONNABORTED {
		t.Errorf("pread: %q", res.Err)
	}
	if res := c.try(request{Op: "open", Path: r.path("a/memory")}); res.Errno != unix.ENOTCONN {
		t.Errorf("open: %q", res.Err)
	}
	var bad *MountPointError
	if _, err := checkMountPoint(r.dir); !errors.As(err, &bad) || !errors.Is(err, ErrAlreadyMounted) {
		t.Errorf("the dead mount: %v", err)
	}
}

// The same while a READ is being served.
func TestServerKilledInRead(t *testing.T) {
	x := spec{Name: "a", Pages: 100, Seed: 1}
	r := startServer(t, remoteConfig{Dir: mountDir(t), Specs: []spec{x}, Hang: 50}, nil)
	c := startClient(t, r.abort, nil)
	fd := c.open(r.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(10), Spec: &x})
	touch := c.start(request{Op: "touch", Map: m, GFNs: []uint64{60}})
	pread := c.start(request{Op: "pread", FD: fd, Off: 70 * PageSize, Len: PageSize})
	r.kill()
	if res := touch(); res.Bus != 1 {
		t.Errorf("touch: %q", res.Err)
	}
	if res := pread(); res.Err == "" {
		t.Error("pread gives bytes")
	}
}

// Abort frees everybody who waits for a server that hangs, and takes the mount away although it is
// in use.
func TestAbort(t *testing.T) {
	x := spec{Name: "a", Pages: 100, Seed: 1}
	r := startServer(t, remoteConfig{Dir: mountDir(t), Specs: []spec{x}, Hang: 50}, nil)
	c := startClient(t, r.abort, nil)
	fd := c.open(r.path("a/memory"), unix.O_RDONLY)
	m := c.mapFile(fd, x.Pages)
	c.do(request{Op: "touch", Map: m, GFNs: upTo(10), Spec: &x})
	touch := c.start(request{Op: "touch", Map: m, GFNs: []uint64{60, 61}})
	pread := c.start(request{Op: "pread", FD: fd, Off: 70 * PageSize, Len: PageSize})
	if err := Abort(r.dir); err != nil {
		t.Fatal(err)
	}
	if res := touch(); res.Bus != 2 {
		t.Errorf("touch: %q", res.Err)
	}
	if res := pread(); res.Err == "" {
		t.Error("pread gives bytes")
	}
	if m, err := FindMount(r.dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("it is still mounted: %v %v", m, err)
	}
	c.do(request{Op: "touch", Map: m, GFNs: upTo(10), Spec: &x}) // these are in the page cache
	if err := Abort(r.dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("again: %v", err)
	}
}

// A server whose mount is aborted or unmounted by somebody else ends, and closes its images.
func TestUnmountedByOthers(t *testing.T) {
	for name, end := range map[string]func(dir string) error{
		"abort":  Abort,
		"umount": func(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) },
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root: umount(2)")
			}
			x := wsSpec()
			store := newFakeStore(x)
			srv, err := Mount(t.Context(), store, mountDir(t), Options{Log: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			c := startClient(t, func() { Abort(srv.mnt) }, nil)
			fd := c.open(filepath.Join(srv.mnt, "a/memory"), unix.O_RDONLY)
			if err := end(srv.mnt); err != nil {
				t.Fatal(err)
			}
			c.close(fd)
			srv.Wait()
			if _, open := store.opened("a"); open != 0 {
				t.Errorf("%d images open", open)
			}
			if err := srv.Unmount(context.Background()); err != nil {
				t.Errorf("unmount afterwards: %v", err)
			}
		})
	}
}

// A mount that is in use is not unmounted.
func TestUnmountBusy(t *testing.T) {
	x := wsSpec()
	b := mounted(t, newFakeStore(x), Options{})
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	if err := b.Unmount(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("unmount: %v", err)
	}
	c.do(request{Op: "touch", Map: c.mapFile(fd, 10), GFNs: upTo(10), Spec: &x})
}

// Without root, fusermount3 mounts and unmounts.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	dir := mountDir(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	x := wsSpec()
	r := startServer(t, remoteConfig{Dir: dir, Specs: []spec{x}}, attr)
	c := startClient(t, r.abort, attr)
	fd := c.open(r.path("a/memory"), unix.O_RDONLY)
	c.do(request{Op: "readall", FD: fd, Len: 1 << 20, Spec: &x})
	c.close(fd)
	if err := r.stop(); err != nil {
		t.Errorf("the server ends: %v", err)
	}
	if m, err := FindMount(dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("still mounted: %v %v", m, err)
	}
}

// Who may use the mount: the one who mounted it, or everybody.
func TestAllowOther(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	x := wsSpec()
	for allow, want := range map[bool]unix.Errno{false: unix.EACCES, true: 0} {
		b := mounted(t, newFakeStore(x), Options{Rights: Rights{Others: allow}})
		c := startClient(t, b.abort, attr)
		for _, path := range []string{"a/memory", "a/clones/x/memory"} {
			flags := unix.O_RDONLY
			if path != "a/memory" {
				flags = unix.O_RDWR
			}
			res := c.try(request{Op: "open", Path: b.path(path), Flags: flags})
			if res.Errno != want {
				t.Errorf("allow %v: %s: %q", allow, path, res.Err)
			}
		}
	}
}

func TestMountPoints(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store := newFakeStore(spec{Name: "a", Pages: 1})
	b := mounted(t, store, Options{})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(b.dir, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "missing"):       os.ErrNotExist,
		filepath.Join(dir, "missing", "it"): os.ErrNotExist,
		file:                                ErrNotDirectory,
		dir:                                 ErrNotEmpty,
		b.dir:                               ErrAlreadyMounted,
		link:                                ErrAlreadyMounted,
	} {
		srv, err := Mount(t.Context(), store, path, Options{})
		var bad *MountPointError
		if !errors.Is(err, want) || !errors.As(err, &bad) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if err == nil {
			srv.Unmount(context.Background())
		}
	}
	if err := Abort(dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("abort of what is no mount: %v", err)
	}
}

// The control file system cuts a connection by the number that the table of mounts has.
func TestAbortConnection(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mount(2)")
	}
	ctl := t.TempDir()
	if err := unix.Mount("fusectl", ctl, "fusectl", 0, ""); err != nil {
		t.Skip("needs fusectl: ", err)
	}
	defer unix.Unmount(ctl, unix.MNT_DETACH)
	x := spec{Name: "a", Pages: 100, Seed: 1}
	r := startServer(t, remoteConfig{Dir: mountDir(t), Specs: []spec{x}, Hang: 50}, nil)
	c := startClient(t, r.abort, nil)
	fd := c.open(r.path("a/memory"), unix.O_RDONLY)
	pread := c.start(request{Op: "pread", FD: fd, Off: 70 * PageSize, Len: PageSize})
	m, err := FindMount(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := abortConnection(ctl, m.Minor); err != nil {
		t.Fatal(err)
	}
	if res := pread(); res.Err == "" {
		t.Error("pread gives bytes")
	}
}
