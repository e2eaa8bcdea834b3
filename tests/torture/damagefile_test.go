package torture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// damageFile does to a file what disks do.
func damageFile(r *rand.Rand, path string) (what string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if len(b) == 0 {
		return "empty already", nil
	}
	at := r.IntN(len(b))
	if r.IntN(2) == 0 { // where footers and directories are
		at = len(b) - 1 - r.IntN(min(len(b), 600))
	}
	switch r.IntN(5) {
	case 0:
		what = fmt.Sprintf("cut at %d of %d", at, len(b))
		b = b[:at]
	case 1:
		end := min(len(b), at+1+r.IntN(5000))
		what = fmt.Sprintf("zeros from %d to %d of %d", at, end, len(b))
		clear(b[at:end])
	case 2:
		what = fmt.Sprintf("gone, of %d bytes", len(b))
		return what, os.Remove(path)
	case 3:
		what = fmt.Sprintf("bytes from elsewhere at %d of %d", at, len(b))
		copy(b[at:min(len(b), at+4096)], b[r.IntN(len(b)):])
	default:
		bit := byte(1) << r.IntN(8)
		what = fmt.Sprintf("bit %#02x at %d of %d", bit, at, len(b))
		b[at] ^= bit
	}
	return what, os.WriteFile(path, b, 0o600)
}

// damageIndex damages one file of an index.
func damageIndex(l *life, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return nil // there is none
	}
	file := filepath.Join(dir, entries[l.r.IntN(len(entries))].Name())
	what, err := damageFile(l.r, file)
	l.note("damage index", "%s: %s", filepath.Base(file), what)
	return err
}
