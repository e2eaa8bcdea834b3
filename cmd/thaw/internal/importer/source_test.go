package importer

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/thawfs/thaw/index"
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
		})
	}
}
