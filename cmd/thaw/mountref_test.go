package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

func TestNotOnAMount(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"loop": "loop", "up": "../..", "root": "/",
		"nowhere": "/no/such/place"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, "/", ".", "", dir + "/loop/x", dir + "/up/x", dir + "/root",
		dir + "/nowhere/x", dir + "/missing/x"} {
		_, err := resolveMount(t.Context(), path)
		if code, hint, _ := exitcode.Of(err); code != exitcode.NotFound || hint == "" {
			t.Errorf("%q: %v (%v)", path, err, code)
		}
		if err := answering(t.Context(), path); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// What hangs in the kernel does not hold its caller, and what does not hang is passed on.
func TestBounded(t *testing.T) {
	broken := errors.New("broken")
	if n, err := bounded(t.Context(), func() (int, error) { return 7, broken }); n != 7 || !errors.Is(err, broken) {
		t.Errorf("%d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hangs := make(chan struct{})
	defer close(hangs)
	_, err := bounded(ctx, func() (int, error) { <-hangs; return 0, nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A directory below a temporary one that somebody else made, or that all can read, is not used.
func TestPrivateDir(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	dir, err := privateDir("/mnt/thaw")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := privateDir("/mnt/thaw"); err != nil || again != dir {
		t.Errorf("again: %s, %v", again, err)
	}
	if other, err := privateDir("/srv/thaw"); err != nil || other == dir {
		t.Errorf("of another mount: %s, %v", other, err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := privateDir("/mnt/thaw"); err == nil {
		t.Error("a directory that others can read was used")
	}
	if err := errors.Join(os.RemoveAll(filepath.Dir(dir)), os.Symlink(t.TempDir(),
		filepath.Dir(dir))); err != nil {
		t.Fatal(err)
	}
	if _, err := privateDir("/mnt/thaw"); err == nil {
		t.Error("a link was followed")
	}
}
