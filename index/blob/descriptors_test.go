package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// tight is a Dir that keeps few descriptors.
func tight(t *testing.T, limit int) (*Dir, string) {
	t.Helper()
	root := t.TempDir()
	d, err := OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	d.open.limit = limit
	return d, root
}

// put commits a blob.
func put(t *testing.T, d *Dir, name string, data []byte) {
	t.Helper()
	w, err := d.Create(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// held counts descriptors and mappings of files below a directory.
func held(t *testing.T, root string) (open, mapped int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, root+"/") {
			open++
		}
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return open, strings.Count(string(maps), root+"/")
}

// content is that of a blob of some generation: as long as a few pages, and not a multiple of them.
func content(seed uint64) []byte {
	b := make([]byte, 1+seed*977%20000)
	rnd := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	_, _ = rnd.Read(b)
	return b
}

// checkRead reads a part of an object, or beyond its end.
func checkRead(r *rand.Rand, o Object, want []byte) error {
	off, n := r.IntN(len(want)+1), r.IntN(len(want)+2)
	got := make([]byte, n)
	k, err := o.ReadAt(got, int64(off))
	if end := off + n; end > len(want) {
		if !errors.Is(err, io.EOF) || k != len(want)-off {
			return fmt.Errorf("%d bytes at %d of %d: %d, %v; want the end", n, off, len(want), k, err)
		}
		got = got[:k]
	} else if err != nil {
		return err
	}
	if !bytes.Equal(got, want[off:off+k]) {
		return fmt.Errorf("%d bytes at %d of %d are wrong", n, off, len(want))
	}
	return nil
}

// Many objects are read at once with few descriptors, while blobs are removed and others take their names:
// each object has the bytes that it was opened with, the bound holds, and nothing is left in the end.
func TestFewDescriptors(t *testing.T) {
	const names, readers, limit = 24, 6, 4
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	d, root := tight(t, limit)
	var mu sync.RWMutex // of what lies there
	there := make([]uint64, names)
	name := func(i int) string { return fmt.Sprintf("packs/%02d", i) }
	for i := range there {
		there[i] = uint64(i + 1)
		put(t, d, name(i), content(there[i]))
	}
	var all sync.WaitGroup
	for w := range readers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			open, want := map[int]Object{}, map[int][]byte{}
			for range 2000 {
				i := r.IntN(names)
				o := open[i]
				switch n := r.IntN(40); {
				case o == nil:
					mu.RLock()
					o, err := d.Open(t.Context(), name(i))
					want[i] = content(there[i])
					mu.RUnlock()
					if err != nil {
						t.Error(err)
						return
					}
					open[i] = o
				case n == 0:
					if err := o.Close(); err != nil {
						t.Error(err)
					}
					delete(open, i)
				default:
					if err := checkRead(r, o, want[i]); err != nil {
						t.Errorf("%s: %v", name(i), err)
						return
					}
				}
				if w == 0 && r.IntN(20) == 0 {
					mu.Lock()
					if err := d.Remove(context.Background(), name(i)); err != nil {
						t.Error(err)
					}
					there[i] += names
					put(t, d, name(i), content(there[i]))
					mu.Unlock()
				}
				if w == 1 && r.IntN(50) == 0 {
					if n, _ := held(t, root); n > limit+2*readers+1 {
						t.Errorf("%d descriptors", n)
					}
				}
			}
			for _, o := range open {
				if err := o.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if open, mapped := held(t, root); open+mapped > 0 || d.open.taken != 0 || len(d.open.ring) != 0 {
		t.Errorf("left: %d descriptors, %d mappings, %d counted, %d in the ring", open, mapped,
			d.open.taken, len(d.open.ring))
	}
}

// A file that is read again and again keeps its descriptor; one that is not gives it up first.
func TestClock(t *testing.T) {
	d, _ := tight(t, 3)
	var all []*hostObject
	buf := make([]byte, 1)
	for i := range 20 {
		name := fmt.Sprint("packs/", i)
		put(t, d, name, []byte{byte(i)})
		o, err := d.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		all = append(all, o.(*hostObject))
		if _, err := all[0].ReadAt(buf, 0); err != nil || buf[0] != 0 {
			t.Fatal(buf, err)
		}
		if all[0].kept.Load() != nil {
			t.Fatalf("after %d others the file that is always read was without a descriptor", i)
		}
	}
	if d.open.taken != 3 {
		t.Errorf("%d descriptors", d.open.taken)
	}
}

// When the process may have no more files, others give way, although the limit is not reached.
func TestGiveWay(t *testing.T) {
	d, root := tight(t, 1000)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	now := was
	now.Cur = 40
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	}()
	var all []Object
	for i := range 100 {
		name := fmt.Sprint("packs/", i)
		// What is written needs a descriptor, too.
		if i > 0 && i%20 == 0 {
			for range 5 {
				d.open.giveWay()
			}
		}
		data := []byte{byte(i)}
		if err := os.MkdirAll(filepath.Join(root, "packs"), 0o700); err != nil {
			t.Fatal(err)
		}
		for os.WriteFile(filepath.Join(root, name), data, 0o600) != nil && d.open.giveWay() {
		}
		o, err := d.Open(t.Context(), name)
		if err != nil {
			t.Fatalf("open %d: %v", i, err)
		}
		all = append(all, o)
	}
	for i, o := range all {
		buf := make([]byte, 1)
		if _, err := o.ReadAt(buf, 0); err != nil || buf[0] != byte(i) {
			t.Fatalf("%d: %v, %v", i, buf, err)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
	if d.open.taken != 0 {
		t.Errorf("%d descriptors are counted", d.open.taken)
	}
}

// A file that cannot be mapped keeps its descriptor.
func TestNotMapped(t *testing.T) {
	d, _ := tight(t, 2)
	put(t, d, "packs/empty", nil) // of no byte there is no mapping
	o, err := d.Open(t.Context(), "packs/empty")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		name := fmt.Sprint("packs/", i)
		put(t, d, name, []byte{1})
		x, err := d.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
	}
	if f := o.(*hostObject).file.Load(); f == nil || o.(*hostObject).place != placeOwn {
		t.Errorf("it is without a descriptor")
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if d.open.taken != 2 {
		t.Errorf("%d descriptors are counted, want 2", d.open.taken)
	}
}

// A read allocates nothing while the file has its descriptor, nor after its name has gone.
func TestReadAllocatesNothing(t *testing.T) {
	d, _ := tight(t, 1)
	put(t, d, "packs/a", content(7))
	put(t, d, "packs/b", content(8))
	a, err := d.Open(t.Context(), "packs/a")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	buf := make([]byte, 100)
	read := func() {
		if _, err := a.ReadAt(buf, 10); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(100, read); n != 0 {
		t.Errorf("%g allocations", n)
	}
	b, err := d.Open(t.Context(), "packs/b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := d.Remove(t.Context(), "packs/a"); err != nil {
		t.Fatal(err)
	}
	read()
	if n := testing.AllocsPerRun(100, read); n != 0 {
		t.Errorf("removed: %g allocations", n)
	}
}
