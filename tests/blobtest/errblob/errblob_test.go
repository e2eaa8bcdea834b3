package errblob_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// work makes two blobs, reads one and removes it: seven kinds of operations.
func work(s blob.Store) error {
	ctx := context.Background()
	for _, name := range []string{"a", "b"} {
		w, err := s.Create(ctx, name)
		if err != nil {
			return err
		}
		if _, err := w.Write(bytes.Repeat([]byte(name), 100)); err != nil {
			return errors.Join(err, w.Abort())
		}
		if err := w.Commit(); err != nil {
			return err
		}
	}
	o, err := s.Open(ctx, "a")
	if err != nil {
		return err
	}
	defer o.Close()
	if _, err := o.ReadAt(make([]byte, 100), 0); err != nil {
		return err
	}
	if _, err := s.List(ctx, ""); err != nil {
		return err
	}
	return s.Remove(ctx, "a")
}

func TestFailEach(t *testing.T) {
	clean := errblob.New(blobtest.NewMem(), nil)
	if err := work(clean); err != nil {
		t.Fatal(err)
	}
	total := clean.Operations()
	if total != 10 {
		t.Fatalf("%d operations", total)
	}
	for n := 1; n <= total; n++ {
		s := errblob.New(blobtest.NewMem(), errblob.FailNth(n, errblob.ErrInjected))
		if err := work(s); !errors.Is(err, errblob.ErrInjected) {
			t.Errorf("operation %d: %v", n, err)
		}
	}
}

func TestCrash(t *testing.T) {
	for n := 1; n <= 10; n++ {
		for _, after := range []bool{false, true} {
			mem := blobtest.NewMem()
			s := errblob.New(mem, errblob.Crash(n, after))
			if err := work(s); !errors.Is(err, errblob.ErrCrashed) {
				t.Fatalf("crash at %d: %v", n, err)
			}
			if _, err := s.List(context.Background(), ""); !errors.Is(err, errblob.ErrCrashed) {
				t.Errorf("alive after the crash: %v", err)
			}
			left, err := mem.List(context.Background(), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range left {
				got := blobtest.Get(t, mem, b.Name)
				if !bytes.Equal(got, bytes.Repeat([]byte(b.Name), 100)) {
					t.Errorf("crash at %d: half a blob: %q", n, got)
				}
			}
			// Operation 3 is the first commit: it shows only if the crash came after it.
			if n == 3 && len(left) != map[bool]int{false: 0, true: 1}[after] {
				t.Errorf("crash at the commit, after=%v: %d blobs", after, len(left))
			}
		}
	}
}
