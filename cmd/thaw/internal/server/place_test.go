package server

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

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
