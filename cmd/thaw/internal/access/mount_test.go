package access

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
		_, err := Resolve(t.Context(), path)
		if code, hint, _ := exitcode.Of(err); code != exitcode.NotFound || hint == "" {
			t.Errorf("%q: %v (%v)", path, err, code)
		}
		if err := Answering(t.Context(), path); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// An interrupted command is interrupted, wherever its store is.
func TestAnsweringInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Answering(ctx, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// What hangs in the kernel does not hold its caller, and what does not hang is passed on.
func TestBounded(t *testing.T) {
	broken := errors.New("broken")
	n, err := Bounded(t.Context(), "/mnt", func() (int, error) { return 7, broken })
	if n != 7 || !errors.Is(err, broken) {
		t.Errorf("%d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hangs := make(chan struct{})
	defer close(hangs)
	_, err = Bounded(ctx, "/mnt", func() (int, error) { <-hangs; return 0, nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
