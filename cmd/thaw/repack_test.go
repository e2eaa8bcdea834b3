package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/index"
)

// storeToRepack has a checkpoint of pages that compress.
func storeToRepack(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "store")
	img := make([]byte, 500*index.PageSize)
	for i := 0; i < len(img); i += 64 {
		binary.LittleEndian.PutUint64(img[i:], rand.Uint64())
		copy(img[i+8:i+64], "what pages of one machine have in common with one another")
	}
	memory := filepath.Join(t.TempDir(), "memory")
	if err := os.WriteFile(memory, img, 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := index.OpenSource(memory)
	if err != nil {
		t.Fatal(err)
	}
	s, err := index.Open(t.Context(), dir, index.OpenOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Import(t.Context(), src, index.ImportOptions{Name: "vm"})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A command that gets the store in the middle of a repacking may have it for longer than commands wait for
// one another: the repacking goes on when that one has ended. So does a dry run, which gives way, too.
func TestRepackWaitsForWhoWasLetIn(t *testing.T) {
	for _, dry := range []bool{false, true} {
		dir := storeToRepack(t)
		a := &app{stderr: io.Discard}
		a.setup()
		a.stores.Wait = time.Millisecond
		waiting, notes := make(chan struct{}), 0
		a.stores.Note = func(string, ...any) {
			if notes++; notes == 2 { // the first wait was in vain
				close(waiting)
			}
		}
		ended, other := make(chan struct{}), make(chan error, 1)
		hold := func() error {
			s, err := index.Open(t.Context(), dir, index.OpenOptions{Wait: time.Minute})
			if err != nil {
				return err
			}
			select {
			case <-waiting:
			case <-ended:
			}
			return s.Close()
		}
		begun := false
		wait := func(ctx context.Context) error {
			if begun {
				return nil
			}
			begun = true
			go func() { other <- hold() }()
			<-ctx.Done() // it gives way, or the test hangs
			return ctx.Err()
		}
		report, err := repack(t.Context(), a, dir, index.RepackOptions{DryRun: dry, Wait: wait}, false)
		close(ended)
		if err != nil || report.Repacked != 1 || report.FreedBytes() <= 0 || notes < 2 {
			t.Errorf("dry %v: %+v, %v; it has waited %d times", dry, report, err, notes)
		}
		if err := <-other; err != nil {
			t.Error(err)
		}
	}
}

// One that does not get the store at all ends after a while, as other commands do.
func TestRepackOfAStoreInUse(t *testing.T) {
	dir := storeToRepack(t)
	s, err := index.Open(t.Context(), dir, index.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a := &app{stderr: io.Discard}
	a.setup()
	a.stores.Wait = time.Millisecond
	if _, err := repack(t.Context(), a, dir, index.RepackOptions{}, false); !errors.Is(err, index.ErrLocked) {
		t.Errorf("%v", err)
	}
}

// A repacking that nobody has asked for leaves room on the disk.
func TestRoomToRepack(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		all, free uint64
		ok        bool
	}{
		{20 * gib, 2 * gib, true}, {20 * gib, 2*gib - 1, false}, {0, 0, true},
		{1000 * gib, 10 * gib, true}, {1000 * gib, 10*gib - 1, false},
	} {
		err := enough(c.all, c.free)
		if (err == nil) != c.ok || err != nil && (!exitcode.Has(err, exitcode.NoSpace) ||
			!strings.Contains(err.Error(), "free")) {
			t.Errorf("%d of %d: %v", c.free, c.all, err)
		}
	}
	if err := roomToRepack(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("of a disk that is not there nothing is known")
	}
}
