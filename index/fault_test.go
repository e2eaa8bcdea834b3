package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// faultStep is one operation on a store and what it makes of the checkpoints that there are.
type faultStep struct {
	what string
	do   func(ctx context.Context, s *Store) error
	// then changes what must be there, if do worked.
	then func(have map[string]string)
	// half changes what may be there, too, if do failed; nil: it is done whole or not at all.
	half func(have map[string]string)
}

// faultScript goes through everything that writes. have maps a name to the image and working set
// that it must have.
type faultScript struct {
	images map[string][]byte
	steps  []faultStep
}

func newFaultScript(t *testing.T) *faultScript {
	r := rand.New(rand.NewPCG(8, 8))
	one := randomImage(r, 900)
	two := one.change(r, 20)
	f := &faultScript{images: map[string][]byte{"one": one.bytes(), "two": two.bytes(),
		"three": two.bytes()}}
	state := bytes.Repeat([]byte("state"), 20000)
	src1 := writeSource(t, f.images["one"], map[string][]byte{"state": state})
	src2 := writeSource(t, f.images["two"], nil)
	imp := func(name string, src Source, set []Run) faultStep {
		return faultStep{what: "import " + name, do: func(ctx context.Context, s *Store) error {
			_, _, err := s.Import(ctx, src, ImportOptions{Name: name, Replace: true, WorkingSet: set})
			return err
		}, then: func(have map[string]string) { have[name] = fmt.Sprint(len(set)) }}
	}
	repack := faultStep{what: "repack", do: func(ctx context.Context, s *Store) error {
		_, err := s.Repack(ctx, RepackOptions{})
		return err
	}, then: func(map[string]string) {}}
	setTo := func(name string, set []Run) faultStep {
		return faultStep{what: "set", do: func(ctx context.Context, s *Store) error {
			_, err := s.SetWorkingSet(ctx, name, []byte("x"), set)
			return err
		}, then: func(have map[string]string) { have[name] = fmt.Sprint(len(set)) }}
	}
	f.steps = []faultStep{
		imp("one", src1, []Run{{100, 50}}),
		imp("two", src2, nil),
		repack,
		setTo("two", []Run{{5, 40}, {300, 20}}),
		imp("one", src1, []Run{{100, 20}, {7, 3}, {300, 40}}), // in place of the first
		{what: "rename", do: func(ctx context.Context, s *Store) error {
			_, err := s.Rename(ctx, "two", "three")
			return err
		}, then: func(have map[string]string) {
			have["three"] = have["two"]
			delete(have, "two")
		}, half: func(have map[string]string) { have["three"] = have["two"] }},
		{what: "remove", do: func(ctx context.Context, s *Store) error { return s.Remove(ctx, "one") },
			then: func(have map[string]string) { delete(have, "one") }},
		{what: "gc", do: func(ctx context.Context, s *Store) error {
			_, err := s.GC(ctx, GCOptions{})
			return err
		}, then: func(map[string]string) {}},
		repack,
		setTo("three", []Run{{1, 2}}),
	}
	return f
}

// run does the steps until one fails. It gives the states that may be found afterwards: the one
// before the failed step and the one after it. With retry the failed step is done again instead, by
// the same Store, which must work, and the rest after it.
func (f *faultScript) run(t *testing.T, dir string, blobs blob.Store, injected error,
	retry bool) (may []map[string]string) {
	t.Helper()
	ctx := context.Background()
	have := map[string]string{}
	s, err := Open(ctx, dir, OpenOptions{Create: true, Blobs: blobs})
	if err != nil {
		if !errors.Is(err, injected) {
			t.Fatalf("open: %v", err)
		}
		return []map[string]string{have}
	}
	defer s.Close()
	for _, step := range f.steps {
		before := maps.Clone(have)
		err := step.do(ctx, s)
		step.then(have)
		if err != nil {
			if !errors.Is(err, injected) {
				t.Fatalf("%s: %v", step.what, err)
			}
			if retry {
				if err := step.do(ctx, s); err != nil {
					t.Fatalf("%s once more: %v", step.what, err)
				}
				may = []map[string]string{have}
				continue
			}
			may = []map[string]string{before, have}
			if step.half != nil {
				half := maps.Clone(before)
				step.half(half)
				may = append(may, half)
			}
			return may
		}
		may = []map[string]string{have}
	}
	return may
}

// verify opens the store without faults: it must be sound, and in one of the states.
func (f *faultScript) verify(t *testing.T, dir string, blobs blob.Store, may []map[string]string) {
	t.Helper()
	s := openTest(t, dir, blobs)
	defer s.Close()
	list, err := s.List(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range list {
		m := openImage(t, s, c.Name)
		got[c.Name] = fmt.Sprint(len(m.WorkingSet()))
		want := f.images[c.Name]
		b := make([]byte, len(want))
		if err := m.ReadRange(0, b); err != nil || !bytes.Equal(b, want) {
			t.Fatalf("%s differs: %v", c.Name, err)
		}
		sameWorkingSet(t, m, want, m.WorkingSet())
		m.Close()
	}
	ok := false
	for _, state := range may {
		ok = ok || fmt.Sprint(state) == fmt.Sprint(got)
	}
	if !ok {
		t.Fatalf("found %v, may be %v", got, may)
	}
	checkClean(t, s, true)
	f.noLeaks(t, s)
}

// noLeaks checks that after a collection there is nothing that no checkpoint needs.
func (f *faultScript) noLeaks(t *testing.T, s *Store) {
	t.Helper()
	if _, err := s.GC(context.Background(), GCOptions{}); err != nil {
		t.Fatal(err)
	}
	s.cat.mu.Lock()
	listed := s.cat.referenced()
	roots := len(s.cat.m)
	s.cat.mu.Unlock()
	blobs, err := s.blobs.List(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, b := range blobs {
		if strings.HasPrefix(b.Name, "packs/") || strings.HasPrefix(b.Name, "checkpoints/") {
			n++
		}
	}
	if n != len(listed)+roots {
		t.Fatalf("%d blobs for %d packs and %d roots: %v", n, len(listed), roots, blobs)
	}
}

func TestEveryBlobOperationFails(t *testing.T) {
	f := newFaultScript(t)
	counted := errblob.New(blobtest.NewMem(), nil)
	if may := f.run(t, t.TempDir()+"/s", counted, nil, false); len(may) != 1 {
		t.Fatal("the script does not work")
	}
	total := counted.Operations()
	t.Logf("%d operations", total)
	failNth := func(n int) errblob.Plan { return errblob.FailNth(n, errblob.ErrInjected) }
	plans := map[string]struct {
		plan  func(n int) errblob.Plan
		err   error
		retry bool
	}{
		"fail":  {failNth, errblob.ErrInjected, false},
		"retry": {failNth, errblob.ErrInjected, true},
		"late": {func(n int) errblob.Plan {
			return func(c errblob.Call) errblob.Fault {
				if c.N != n {
					return errblob.Fault{}
				}
				return errblob.Fault{Err: errblob.ErrInjected, After: true}
			}
		}, errblob.ErrInjected, false},
		"crash": {func(n int) errblob.Plan { return errblob.Crash(n, false) }, errblob.ErrCrashed, false},
		"lost":  {func(n int) errblob.Plan { return errblob.Crash(n, true) }, errblob.ErrCrashed, false},
	}
	// Every operation fails in one of the ways, in another one in each run; with -short one of eight does, and
	// with the race detector one of two again: nearly all of this is done by one goroutine after another.
	step := len(plans) * fewer(1, 8)
	if raceEnabled {
		step *= 2
	}
	offsets := rand.Perm(step)
	for name, p := range plans {
		first := 1 + offsets[0]
		offsets = offsets[1:]
		t.Run(name, func(t *testing.T) {
			t.Logf("every %d. operation, from %d on", step, first)
			for n := first; n <= total; n += step {
				mem := blobtest.NewMem()
				dir := t.TempDir() + "/s"
				f.verify(t, dir, mem, f.run(t, dir, errblob.New(mem, p.plan(n)), p.err, p.retry))
				if t.Failed() {
					t.Fatalf("operation %d", n)
				}
			}
		})
	}
}

func TestOutOfSpace(t *testing.T) {
	f := newFaultScript(t)
	step := fewer(40<<10, 160<<10)
	if raceEnabled {
		step *= 4
	}
	for capacity := newRand(t).IntN(step); ; capacity += step {
		mem := blobtest.NewMem()
		dir := t.TempDir() + "/s"
		may := f.run(t, dir, errblob.New(mem, errblob.Full(capacity)), unix.ENOSPC, false)
		f.verify(t, dir, mem, may)
		if len(may) == 1 {
			break
		}
	}
}
