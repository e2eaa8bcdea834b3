package blob_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

func newDir(t *testing.T) (*blob.Dir, string) {
	root := t.TempDir()
	d, err := blob.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d, root
}

func TestMem(t *testing.T) {
	blobtest.Suite{New: func(*testing.T) blob.Store { return blobtest.NewMem() }}.Run(t)
}

func TestDir(t *testing.T) {
	roots := make(map[blob.Store]string)
	blobtest.Suite{
		New: func(t *testing.T) blob.Store {
			d, root := newDir(t)
			roots[d] = root
			return d
		},
		Reopen: func(t *testing.T, s blob.Store) blob.Store {
			d, err := blob.OpenDir(roots[s])
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
	}.Run(t)
}

func TestErrblobWithoutPlan(t *testing.T) {
	blobtest.Suite{
		New: func(*testing.T) blob.Store { return errblob.New(blobtest.NewMem(), nil) },
	}.Run(t)
}

// files lists every file under root, temporary ones included.
func files(t *testing.T, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestDirLeavesNothingBehind(t *testing.T) {
	ctx := context.Background()
	d, root := newDir(t)
	w, err := d.Create(ctx, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if n := files(t, root); len(n) != 1 || !strings.Contains(n[0], ".tmp-") {
		t.Fatalf("while writing: %v", n)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	if n := files(t, root); len(n) != 0 {
		t.Errorf("after Abort: %v", n)
	}
	w1, err1 := d.Create(ctx, "a/c")
	w2, err2 := d.Create(ctx, "a/c")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := w1.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := w2.Commit(); !errors.Is(err, blob.ErrExists) {
		t.Fatal(err)
	}
	if n := files(t, root); len(n) != 1 || filepath.Base(n[0]) != "c" {
		t.Errorf("after two commits of one name: %v", n)
	}
}

func TestOpenDirRefuses(t *testing.T) {
	root := t.TempDir()
	if _, err := blob.OpenDir(filepath.Join(root, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.OpenDir(file); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("file: %v", err)
	}
}

// TestDirForeignFiles: what is not a blob is no blob, and is left alone.
func TestDirForeignFiles(t *testing.T) {
	ctx := context.Background()
	d, root := newDir(t)
	if err := os.WriteFile(filepath.Join(root, "not a blob"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if l, err := d.List(ctx, ""); err != nil || len(l) != 0 {
		t.Errorf("list: %v, %v", l, err)
	}
	if err := d.Remove(ctx, "sub"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("remove a directory: %v", err)
	}
	if len(files(t, root)) != 2 {
		t.Error("foreign files are gone")
	}
}

func TestErrblobFull(t *testing.T) {
	s := errblob.New(blobtest.NewMem(), errblob.Full(1000))
	w, err := s.Create(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.Write(make([]byte, 900)); n != 900 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := w.Write(make([]byte, 900)); n != 100 || !errors.Is(err, unix.ENOSPC) {
		t.Fatal(n, err)
	}
}
