package mounter

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/fs"
)

const mainEnv = "THAW_TEST_MOUNTER"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		if err := Main(os.Args[1:]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(t *testing.T) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), mainEnv+"=1")
	return cmd
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mount(2)")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse: ", err)
	}
}

// The directory that was named at the start is mounted on, whatever its name leads to by then: its owner
// cannot have another one mounted on.
func TestNameIsLookedUpOnce(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	at, victim, moved := filepath.Join(dir, "at"), filepath.Join(dir, "victim"), filepath.Join(dir, "moved")
	for _, d := range []string{at, victim} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m, err := Start(command(t), at, fs.Mounting{Server: fuse.Owner{Uid: 1, Gid: 1}, Source: "thaw"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at, moved); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, at); err != nil {
		t.Fatal(err)
	}
	device, err := m.Mount(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(device)
	defer unix.Unmount(moved, unix.MNT_DETACH)
	if _, err := fs.FindMount(victim); err == nil {
		t.Error("another directory is mounted on")
	}
	if _, err := fs.FindMount(moved); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// It does one thing, once; and ends with the one who has started it, or with what it cannot do.
func TestOnce(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	m, err := Start(command(t), dir, fs.Mounting{Source: "thaw"})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("it was never asked: %v", err)
	}
	m, err = Start(command(t), dir, fs.Mounting{Shared: true, Source: "thaw"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	device, err := m.Mount(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	defer unix.Close(device)
	if fd, err := m.Mount(t.Context()); err == nil {
		unix.Close(fd)
		t.Error("it mounts twice")
	}
	_, err = Start(command(t), filepath.Join(t.TempDir(), "none"), fs.Mounting{Source: "thaw"})
	if err == nil || !strings.Contains(err.Error(), "no such file or directory") {
		t.Errorf("no directory: %v", err)
	}
}
