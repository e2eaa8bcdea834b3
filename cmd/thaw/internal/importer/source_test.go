package importer

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/wss"
)

// A memory file that was written to, or that grew, since it was opened gives no more bytes.
func TestMemoryThatChanges(t *testing.T) {
	for kind, change := range map[string]func(path string) error{
		"written": func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 0)) },
		"grown":   func(path string) error { return os.Truncate(path, 5*index.PageSize) },
		"cut":     func(path string) error { return os.Truncate(path, 3*index.PageSize) },
	} {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.raw")
			if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 4*index.PageSize), 0o600); err != nil {
				t.Fatal(err)
			}
			src, err := Open(t.Context(), path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			page := make([]byte, index.PageSize)
			if n, err := src.Image.ReadAt(page, 0); n != len(page) || err != nil {
				t.Fatalf("before: %d bytes, %v", n, err)
			}
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			var ie *index.ImageError
			if n, err := src.Image.ReadAt(page, 0); n != 0 || !errors.As(err, &ie) {
				t.Errorf("after: %d bytes, %v", n, err)
			}
			// Where only holes are left nothing is read.
			if runs, err := src.Image.Extents(); runs != nil || !errors.As(err, &ie) {
				t.Errorf("after: extents %v, %v", runs, err)
			}
		})
	}
}

// What lies beside a memory and is no regular file is not waited for.
func TestInfoThatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "memory")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 4*index.PageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "info.json")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ended, waited := make(chan struct{}), make(chan bool)
	go func() { waited <- letGo(fifo, ended) }()
	for _, p := range []string{dir, path} {
		src, err := Open(t.Context(), p, Options{})
		if err != nil {
			t.Errorf("%s: %v", p, err)
			continue
		}
		src.Close()
	}
	close(ended)
	if <-waited {
		t.Error("a FIFO was waited for")
	}
}

// letGo lets go who waits for a writer of a FIFO, until ended is closed. It says whether anybody has waited.
func letGo(fifo string, ended chan struct{}) (waited bool) {
	for {
		if w, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil { // else nobody reads
			waited = true
			w.Close()
		}
		select {
		case <-ended:
			return waited
		default:
			runtime.Gosched()
		}
	}
}

// A file that is no working set is not read whole to see that.
func TestWorkingSetThatIsLarge(t *testing.T) {
	dir := t.TempDir()
	set := filepath.Join(dir, "working-set")
	for path, size := range map[string]int64{filepath.Join(dir, "memory"): index.PageSize, set: 64 << 20} {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			t.Fatal(err)
		}
	}
	src, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = src.workingSet(set)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, wss.ErrBadSet) {
		t.Error(err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}
