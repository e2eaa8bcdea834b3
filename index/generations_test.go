package index

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
	"github.com/thawfs/thaw/tests/blobtest"
	"github.com/thawfs/thaw/tests/blobtest/errblob"
)

// sharedPack fills a store such that a gc rewrites a pack that "base" needs, and gives its image.
func sharedPack(t *testing.T, s *Store, seed uint64) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(95, seed))
	garbage := randomImage(r, 120)
	base := garbage.change(r, 15)
	mustImport(t, s, "garbage", writeSource(t, garbage.bytes(), nil), nil)
	mustImport(t, s, "base", writeSource(t, base.bytes(), nil), nil)
	if err := s.Remove(context.Background(), "garbage"); err != nil {
		t.Fatal(err)
	}
	return base.bytes()
}

// openLight opens a store without an index on disk, for tests that open many.
func openLight(t *testing.T, blobs blob.Store) *Store {
	t.Helper()
	s := openTest(t, t.TempDir()+"/s", blobs)
	s.hints.level = hintsMemory
	return s
}

// Wherever a gc is interrupted while an image is open, the next one goes on.
func TestCollectInterrupted(t *testing.T) {
	for op := 1; ; op++ {
		ctx, cancel := context.WithCancel(context.Background())
		var calls int
		armed := false
		blobs := errblob.New(blobtest.NewMem(), func(errblob.Call) errblob.Fault {
			if armed {
				if calls++; calls == op {
					cancel()
				}
			}
			return errblob.Fault{}
		})
		s := openLight(t, blobs)
		want := sharedPack(t, s, 2)
		m := openImage(t, s, "base")
		armed = true
		rep, err := s.GC(ctx, GCOptions{})
		armed = false
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("operation %d: %v", op, err)
		}
		if _, err := s.GC(context.Background(), GCOptions{}); err != nil {
			t.Fatalf("after an interruption at operation %d: %v", op, err)
		}
		sameImage(t, m, want)
		m.Close()
		if rep, err := s.GC(context.Background(), GCOptions{}); err != nil || rep.RewrittenPacks != 0 {
			t.Fatalf("operation %d: a third gc: %+v, %v", op, rep, err)
		}
		checkClean(t, s, true)
		s.Close()
		if calls < op {
			if rep.RewrittenPacks == 0 {
				t.Error("no pack was rewritten")
			}
			return
		}
	}
}

// The same where every operation of a gc fails, also such that it happened all the same, and nothing
// can be removed from then on.
func TestCollectFails(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 7
	}
	for op := 1 + newRand(t).IntN(step); ; op += step {
		for _, after := range []bool{false, true} {
			var calls int
			armed, failed := false, false
			blobs := errblob.New(blobtest.NewMem(), func(c errblob.Call) errblob.Fault {
				if !armed {
					return errblob.Fault{}
				}
				calls++
				if calls == op || failed && c.Op == errblob.Remove {
					failed = true
					return errblob.Fault{Err: errblob.ErrInjected, After: after && c.Op != errblob.Remove}
				}
				return errblob.Fault{}
			})
			s := openLight(t, blobs)
			want := sharedPack(t, s, 2)
			armed = true
			_, err := s.GC(context.Background(), GCOptions{})
			armed = false
			if err != nil && !errors.Is(err, errblob.ErrInjected) {
				t.Fatalf("operation %d: %v", op, err)
			}
			if _, err := s.GC(context.Background(), GCOptions{}); err != nil {
				t.Fatalf("after operation %d failed: %v", op, err)
			}
			m := openImage(t, s, "base")
			sameImage(t, m, want)
			m.Close()
			checkClean(t, s, true)
			s.Close()
			if !failed {
				return
			}
		}
	}
}

// A newer generation that is damaged does no harm: the older one is used, and the one after
// next written.
func TestDamagedNewerGeneration(t *testing.T) {
	ctx := context.Background()
	mem := blobtest.NewMem()
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, mem)
	want := sharedPack(t, s, 3)
	s.Close()
	all, err := mem.List(ctx, pack.Prefix)
	if err != nil {
		t.Fatal(err)
	}
	damaged := map[uint64]uint32{}
	for _, b := range all {
		n, g, _ := pack.ParseName(b.Name)
		damaged[n] = g + 1
		mem.Replace(pack.Name(n, g+1), []byte("damaged"))
	}
	mem.Replace(rootName("base", 1), []byte("damaged"))
	for _, s := range []*Store{openReader(t, dir, mem), openTest(t, dir, mem)} {
		m := openImage(t, s, "base")
		sameImage(t, m, want)
		m.Close()
		checkClean(t, s, true)
		if s.readOnly {
			continue
		}
		rep, err := s.GC(ctx, GCOptions{})
		if err != nil || rep.RewrittenPacks == 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		c, err := s.SetWorkingSet(ctx, "base", nil, []Run{{3, 9}})
		if err != nil || c.Generation != 2 {
			t.Fatalf("generation %d, %v", c.Generation, err)
		}
		s.Close()
	}
	s = openTest(t, dir, mem)
	m := openImage(t, s, "base")
	sameImage(t, m, want)
	sameWorkingSet(t, m, want, []Run{{3, 9}})
	m.Close()
	checkClean(t, s, true)
	// What took the place of a damaged generation took it away.
	if _, err := mem.Open(ctx, rootName("base", 1)); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("the damaged root: %v", err)
	}
	for n, g := range damaged {
		info, _ := s.packs.info(n)
		_, err := mem.Open(ctx, pack.Name(n, g))
		if info.generation == g+1 && !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("a damaged generation of pack %d: %v", n, err)
		}
	}
}

// What was removed does not come back as an older generation of itself that could not be removed.
func TestRemovedStaysRemoved(t *testing.T) {
	ctx := context.Background()
	mem := blobtest.NewMem()
	stuck := rootName("one", 0)
	fail := true
	blobs := errblob.New(mem, func(c errblob.Call) errblob.Fault {
		if fail && c.Op == errblob.Remove && c.Name == stuck {
			return errblob.Fault{Err: errblob.ErrInjected}
		}
		return errblob.Fault{}
	})
	dir := t.TempDir() + "/s"
	s := openTest(t, dir, blobs)
	img := randomImage(rand.New(rand.NewPCG(96, 1)), 100).bytes()
	mustImport(t, s, "one", writeSource(t, img, nil), nil)
	if _, err := s.SetWorkingSet(ctx, "one", nil, []Run{{3, 9}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(ctx, "one"); !errors.Is(err, errblob.ErrInjected) {
		t.Errorf("removed, and an older generation is there: %v", err)
	}
	m := openImage(t, s, "one") // it is whole until it is gone
	sameWorkingSet(t, m, img, []Run{{3, 9}})
	m.Close()
	fail = false
	if err := s.Remove(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openTest(t, dir, blobs)
	if list, err := s.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// However old the index is that a power cut brings back: what was imported is there.
func TestStaleIndex(t *testing.T) {
	ctx := context.Background()
	tmp := t.TempDir()
	dir := filepath.Join(tmp, "store")
	index := filepath.Join(dir, indexDirName)
	r := rand.New(rand.NewPCG(97, 1))
	images := map[string][]byte{}
	var saved []string
	step := func(do func(s *Store)) {
		t.Helper()
		s := openTest(t, dir, nil)
		s.limits.tailPages = 0
		do(s)
		s.Close()
		to := filepath.Join(tmp, fmt.Sprint("index", len(saved)))
		copyTree(t, index, to)
		saved = append(saved, to)
	}
	imp := func(name string) func(*Store) {
		return func(s *Store) {
			// Of one size, and with roots of one size, whatever is in it.
			img := incompressible(r, 300)
			images[name] = img.bytes()
			mustImport(t, s, name, writeSource(t, images[name], nil), nil)
		}
	}
	step(imp("one"))
	step(imp("two"))
	for range 3 {
		step(func(s *Store) {
			if err := s.Remove(ctx, "one"); err != nil {
				t.Fatal(err)
			}
			imp("one")(s)
		})
		step(func(s *Store) {
			if _, err := s.GC(ctx, GCOptions{}); err != nil {
				t.Fatal(err)
			}
		})
	}
	for i, old := range saved {
		copied := filepath.Join(tmp, fmt.Sprint("copy", i))
		copyTree(t, dir, copied)
		if err := os.RemoveAll(filepath.Join(copied, indexDirName)); err != nil {
			t.Fatal(err)
		}
		copyTree(t, old, filepath.Join(copied, indexDirName))
		s := openTest(t, copied, nil)
		s.limits.tailPages = 0
		more := incompressible(r, 300).bytes()
		mustImport(t, s, "more", writeSource(t, more, nil), nil)
		again := writeSource(t, images["one"], nil)
		mustImport(t, s, "again", again, nil)
		if _, err := s.GC(ctx, GCOptions{}); err != nil {
			t.Fatal(err)
		}
		checkClean(t, s, true)
		for name, want := range map[string][]byte{
			"one": images["one"], "two": images["two"], "again": images["one"], "more": more,
		} {
			m := openImage(t, s, name)
			sameImage(t, m, want)
			m.Close()
		}
		s.Close()
	}
}

// No pack number comes twice, whatever is removed and whatever fails.
func TestNumbersNeverComeAgain(t *testing.T) {
	ctx := context.Background()
	mem := blobtest.NewMem()
	seen := map[uint64]bool{}
	n := 0
	r := rand.New(rand.NewPCG(98, 1))
	blobs := errblob.New(mem, func(c errblob.Call) errblob.Fault {
		if strings.HasPrefix(c.Name, numbersPrefix) && r.IntN(4) == 0 {
			return errblob.Fault{Err: errblob.ErrInjected, After: r.IntN(2) == 0}
		}
		return errblob.Fault{}
	})
	for range 200 {
		var a numbers
		if err := a.open(ctx, mem, 0); err != nil { // no pack is left
			t.Fatal(err)
		}
		a.blobs = blobs
		for range r.IntN(3 * numbersStep) {
			number, err := a.take(ctx)
			if errors.Is(err, errblob.ErrInjected) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if seen[number] || number == 0 {
				t.Fatalf("number %d comes again", number)
			}
			seen[number] = true
			n++
		}
	}
	if n == 0 {
		t.Error("no numbers")
	}
	list, err := mem.List(ctx, numbersPrefix)
	if err != nil || len(list) == 0 || len(list) > 20 {
		t.Errorf("%d blobs are left of it, %v", len(list), err)
	}
}

// The number of a pack that is gone is not given again, not even without an index.
func TestNumbersOutliveTheIndex(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/store"
	highest := uint64(0)
	for i := range 3 {
		s := openTest(t, dir, nil)
		img := randomImage(rand.New(rand.NewPCG(99, uint64(i))), 100).bytes()
		mustImport(t, s, "one", writeSource(t, img, nil), []Run{{1, 20}})
		numbers, _ := s.packs.numbers()
		if len(numbers) != 2 || numbers[0] <= highest {
			t.Errorf("packs %v, after %d", numbers, highest)
		}
		highest = numbers[1]
		if err := s.Remove(ctx, "one"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.GC(ctx, GCOptions{}); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if err := os.RemoveAll(filepath.Join(dir, indexDirName)); err != nil {
			t.Fatal(err)
		}
	}
}

// What root makes in the store of somebody else is that one's.
func TestFilesBelongToTheOwnerOfTheStore(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	ctx := context.Background()
	dir := t.TempDir() + "/store"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 4321, 1234); err != nil {
		t.Fatal(err)
	}
	s := openKept(t, dir)
	img := randomImage(rand.New(rand.NewPCG(100, 1)), 100).bytes()
	mustImport(t, s, "one", writeSource(t, img, nil), []Run{{1, 20}})
	if _, err := s.GC(ctx, GCOptions{}); err != nil {
		t.Fatal(err)
	}
	l, err := LockServer(dir, "/mnt")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for path := range tree(t, dir) {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 4321 || st.Gid != 1234 {
			t.Errorf("%s is of %d:%d", path, st.Uid, st.Gid)
		}
	}
}

// A store may have more checkpoints and packs than a process may have files.
func TestFewFiles(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir() + "/store"
	s := openTest(t, dir, nil)
	const checkpoints = 150
	page := func(i int) []byte {
		b := make([]byte, 2*PageSize)
		fillPage(b[:PageSize], uint64(i)*7+7)
		return b
	}
	for i := range checkpoints {
		mustImport(t, s, fmt.Sprint("c", i), writeSource(t, page(i), nil), nil)
	}
	s.Close()
	limitFiles(t, 80)
	r := openReader(t, dir, nil)
	checkClean(t, r, true)
	s = openTest(t, dir, nil)
	checkClean(t, s, true)
	if _, err := s.Check(ctx, CheckOptions{Rebuild: true}); err != nil {
		t.Error(err)
	}
	if _, err := s.GC(ctx, GCOptions{}); err != nil {
		t.Error(err)
	}
	if _, st := mustImport(t, s, "again", writeSource(t, page(3), nil), nil); st.NewPages != 0 {
		t.Errorf("%+v", st)
	}
	if err := s.Export(ctx, "again", t.TempDir()+"/out", ExportOptions{}); err != nil {
		t.Error(err)
	}
	for i := range checkpoints - 1 {
		if err := s.Remove(ctx, fmt.Sprint("c", i)); err != nil {
			t.Fatal(err)
		}
	}
	rep, err := s.GC(ctx, GCOptions{})
	if err != nil || rep.RemovedPacks < checkpoints-5 {
		t.Errorf("%+v, %v", rep, err)
	}
	checkClean(t, s, true)
}
