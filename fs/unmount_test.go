package fs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper is a process that does nothing in a place of its own until the test ends it.
func sleeper(t *testing.T, cmd *exec.Cmd) (end func()) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	return end
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mount(2)")
	}
}

// What else uses the file system keeps the mount where it is, is named, and does not make anybody
// wait; and then the mount can go.
func TestUnmountUsedElsewhere(t *testing.T) {
	asRoot(t)
	x := spec{Name: "a", Pages: 16, Seed: 1}
	for _, c := range []struct {
		kind UserKind
		use  func(t *testing.T, b *bed, dir string) (end func())
	}{
		{UserBind, func(t *testing.T, b *bed, dir string) func() {
			if err := unix.Mount(b.path("a"), dir, "", unix.MS_BIND, ""); err != nil {
				t.Skip("needs bind mounts: ", err)
			}
			return func() { unix.Unmount(dir, unix.MNT_DETACH) }
		}},
		{UserOverlay, func(t *testing.T, b *bed, dir string) func() {
			other := t.TempDir()
			err := unix.Mount("o", dir, "overlay", 0, "lowerdir="+b.path("a")+":"+other)
			if err != nil {
				t.Skip("needs overlay: ", err)
			}
			return func() { unix.Unmount(dir, unix.MNT_DETACH) }
		}},
		{UserNamespace, func(t *testing.T, b *bed, _ string) func() {
			// It lets go of the mounts of other tests, which would be in use by it.
			cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c",
				`for m in $(awk -v own="$0" '$3 == "fuse.thaw" && $2 != own {print $2}' /proc/self/mounts)
				do umount -l "$m"; done; echo; exec sleep 1000`, b.mnt)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			end := sleeper(t, cmd)
			if n, _ := out.Read(make([]byte, 1)); n != 1 {
				t.Skip("needs unshare(1)")
			}
			return end
		}},
		{UserCwd, func(t *testing.T, b *bed, _ string) func() {
			cmd := exec.Command("sleep", "1000")
			cmd.Dir = b.path("a")
			// Not os/exec with a directory of the mount: fork would wait for our own server.
			cmd = exec.Command("sh", "-c", "cd "+b.path("a")+" && echo && exec sleep 1000")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			end := sleeper(t, cmd)
			out.Read(make([]byte, 1))
			return end
		}},
		{UserFile, func(t *testing.T, b *bed, _ string) func() {
			c := b.client()
			fd := c.open(b.path("a/memory"), unix.O_RDONLY)
			c.mapFile(fd, 1)
			return c.end
		}},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			b := mounted(t, newFakeStore(x), Options{})
			dir := t.TempDir()
			end := c.use(t, b, dir)
			defer end()
			err := b.Unmount(t.Context())
			var used *InUseError
			if !errors.As(err, &used) || !errors.Is(err, ErrBusy) || used.Gone {
				t.Fatalf("unmount: %v", err)
			}
			found := false
			for _, u := range used.Users {
				found = found || u.Kind == c.kind
			}
			if !found {
				t.Errorf("%v, want a %s", err, c.kind)
			}
			if _, err := FindMount(b.dir); err != nil {
				t.Errorf("it is not where it was: %v", err)
			}
			again := b.client() // it serves as before
			fd := again.open(b.path("a/memory"), unix.O_RDONLY)
			again.do(request{Op: "readall", FD: fd, Len: 1 << 16, Spec: &x})
			again.end()
			end()
			eventually(t, "it can be unmounted", func() bool {
				return b.Unmount(t.Context()) == nil
			})
		})
	}
}

// A mount is found where it is, also after a directory above it was renamed, used or not; and what else
// is mounted over it is left alone.
func TestUnmountMoved(t *testing.T) {
	asRoot(t)
	x := spec{Name: "a", Pages: 16, Seed: 1}
	top := t.TempDir()
	old, now := filepath.Join(top, "p"), filepath.Join(top, "q")
	if err := os.MkdirAll(filepath.Join(old, "m"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := Mount(t.Context(), newFakeStore(x), filepath.Join(old, "m"), Options{Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, now); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(now, "m")
	abort := func() { Abort(at) }
	t.Cleanup(abort)
	if err := unix.Mount("t", at, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(t.Context()); err == nil || !strings.Contains(err.Error(), "tmpfs") {
		t.Errorf("unmount below another file system: %v", err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatalf("what was mounted over it is gone: %v", err)
	}
	c := startClient(t, abort, nil)
	fd := c.open(filepath.Join(at, "a/memory"), unix.O_RDONLY)
	var used *InUseError
	if err := s.Unmount(t.Context()); !errors.As(err, &used) || used.Path != at || used.Gone {
		t.Errorf("unmount while it is used: %v", err)
	}
	c.close(fd)
	// A bind mount keeps it alive after umount(2): it is mounted again where it was.
	bound := t.TempDir()
	if err := unix.Mount(filepath.Join(at, "a"), bound, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(t.Context()); !errors.As(err, &used) || used.Gone {
		t.Errorf("unmount while it is bound elsewhere: %v", err)
	}
	if m, err := FindMount(at); err != nil || m.Minor != s.minor {
		t.Errorf("it is not where it was: %v, %v", m, err)
	}
	if err := unix.Unmount(bound, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(t.Context()); err != nil {
		t.Error(err)
	}
}

// A detached server goes on for its users, and ends with the last of them.
func TestDetach(t *testing.T) {
	asRoot(t)
	x := spec{Name: "a", Pages: 16, Seed: 1}
	b := mounted(t, newFakeStore(x), Options{})
	bound := t.TempDir()
	if err := unix.Mount(b.path("a"), bound, "", unix.MS_BIND, ""); err != nil {
		t.Skip("needs bind mounts: ", err)
	}
	c := b.client()
	fd := c.open(b.path("a/memory"), unix.O_RDONLY)
	err := b.Detach(t.Context())
	var used *InUseError
	if !errors.As(err, &used) || !used.Gone {
		t.Fatalf("detach: %v", err)
	}
	for _, dir := range []string{b.dir, bound} {
		if _, err := FindMount(dir); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	c.do(request{Op: "readall", FD: fd, Len: 1 << 16, Spec: &x})
	c.end()
	b.Wait()
	if err := b.Detach(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
}

// A server that is frozen answers nothing. Abort needs nothing of it, whatever the path leads
// through; nor do FindMount, Users and the check of a mount point.
func TestFrozenServer(t *testing.T) {
	asRoot(t)
	x := spec{Name: "a", Pages: 16, Seed: 1}
	for name, path := range map[string]func(dir string) string{
		"plain": func(dir string) string { return dir },
		"slash": func(dir string) string { return dir + "/" },
		"dots":  func(dir string) string { return filepath.Dir(dir) + "/./x/../" + filepath.Base(dir) },
		"link": func(dir string) string {
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(dir, link); err != nil {
				t.Fatal(err)
			}
			return link
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mountDir(t)
			if name == "dots" {
				if err := os.Mkdir(filepath.Join(filepath.Dir(dir), "x"), 0o700); err != nil {
					t.Fatal(err)
				}
				defer os.Remove(filepath.Join(filepath.Dir(dir), "x"))
			}
			r := startServer(t, remoteConfig{Dir: dir, Specs: []spec{x}}, nil)
			at := path(dir)
			if err := r.proc.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			within(t, func() {
				if _, err := checkMountPoint(at); !errors.Is(err, ErrAlreadyMounted) {
					t.Errorf("check: %v", err)
				}
				in := filepath.Join(at, "a", "memory")
				if _, err := checkMountPoint(in); !errors.Is(err, ErrAlreadyMounted) {
					t.Errorf("check inside: %v", err)
				}
				m, err := FindMount(at)
				if err == nil {
					_, err = usersOf(m)
				}
				if err != nil {
					t.Errorf("users: %v", err)
				}
				if err := Abort(in); !errors.Is(err, ErrNotMounted) {
					t.Errorf("abort inside: %v", err)
				}
				if err := Abort(at); err != nil {
					t.Errorf("abort: %v", err)
				}
				if _, err := FindMount(at); !errors.Is(err, ErrNotMounted) {
					t.Errorf("afterwards: %v", err)
				}
			}, func() { abortByOwn(mustFind(t, dir).Minor) })
			r.proc.Signal(syscall.SIGCONT)
			if err := r.stop(); err != nil {
				t.Errorf("the server ends: %v", err)
			}
		})
	}
}

func mustFind(t *testing.T, dir string) MountPoint {
	m, err := FindMount(dir)
	if err != nil {
		t.Error(err)
	}
	return m
}

// within runs what must not hang; free ends its wait if it does.
func within(t *testing.T, what, free func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		what()
	}()
	select {
	case <-done:
	case <-time.After(opTimeout):
		t.Error("it hangs in the mount")
		free()
		<-done
	}
}

// Each way to cut a connection cuts it.
func TestCut(t *testing.T) {
	asRoot(t)
	x := spec{Name: "a", Pages: 100, Seed: 1}
	for name, cut := range map[string]func(MountPoint) error{
		"own fusectl": func(m MountPoint) error { return abortByOwn(m.Minor) },
		"abort":       cut,
	} {
		t.Run(name, func(t *testing.T) {
			r := startServer(t, remoteConfig{Dir: mountDir(t), Specs: []spec{x}, Hang: 50}, nil)
			c := startClient(t, r.abort, nil)
			fd := c.open(r.path("a/memory"), unix.O_RDONLY)
			pread := c.start(request{Op: "pread", FD: fd, Off: 70 * PageSize, Len: PageSize})
			if err := cut(mustFind(t, r.dir)); err != nil {
				t.Fatal(err)
			}
			if res := pread(); res.Err == "" {
				t.Error("pread gives bytes")
			}
		})
	}
}

// A failed mount leaves the mount that was there before.
func TestFailedMountTakesNothingAway(t *testing.T) {
	b := mounted(t, newFakeStore(spec{Name: "a", Pages: 1}), Options{})
	before, err := readMounts(selfMounts)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.undoMount(before); err != nil {
		t.Error(err)
	}
	if _, err := FindMount(b.dir); err != nil {
		t.Errorf("it was taken away: %v", err)
	}
	if err := b.undoMount(nil); err != nil { // as if it was new
		t.Error(err)
	}
	if _, err := FindMount(b.dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("what a failed mount has left: %v", err)
	}
	b.Wait()
}

// Paths are resolved as the kernel does, but for what a server would have to say.
func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"real/deep", "mnt"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"abs": filepath.Join(dir, "real/deep"), "rel": "real", "loop": "loop",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	table := mountTable{{mountPoint: "/"}, {mountPoint: dir + "/mnt", fsType: fsType}}
	for path, want := range map[string]string{
		"abs/..": "real", "rel/deep": "real/deep", "./rel//deep/": "real/deep",
		"mnt/x/../y": "mnt/y", "rel/../mnt": "mnt", "mnt/..": "",
	} {
		got, err := resolve(filepath.Join(dir, "x")[:len(dir)]+"/"+path, table)
		if err != nil || got != strings.TrimSuffix(dir+"/"+want, "/") {
			t.Errorf("%s: %s %v", path, got, err)
		}
	}
	if _, err := resolve(dir+"/loop", table); !errors.Is(err, unix.ELOOP) {
		t.Errorf("loop: %v", err)
	}
	got, err := resolve(dir+"/missing/it", table)
	if got != dir+"/missing/it" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %s %v", got, err)
	}
	t.Chdir(filepath.Join(dir, "real"))
	if got, err := resolve("deep", table); got != dir+"/real/deep" || err != nil {
		t.Errorf("relative: %s %v", got, err)
	}
}
