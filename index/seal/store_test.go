package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/tests/blobtest"
)

// A sealed store is a blob store like others, in memory and in a directory, and where it hides names.
func TestSuite(t *testing.T) {
	v := testVault(1)
	for _, hidden := range []string{"none", "a", "x"} {
		t.Run("memory/"+hidden, func(t *testing.T) {
			blobtest.Suite{
				New: func(*testing.T) blob.Store { return v.Wrap(blobtest.NewMem(), hidden) },
			}.Run(t)
		})
		t.Run("directory/"+hidden, func(t *testing.T) {
			dirs := map[blob.Store]string{}
			open := func(t *testing.T, dir string) blob.Store {
				d, err := blob.OpenDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				s := v.Wrap(d, hidden)
				dirs[s] = dir
				return s
			}
			blobtest.Suite{
				New:    func(t *testing.T) blob.Store { return open(t, t.TempDir()) },
				Reopen: func(t *testing.T, s blob.Store) blob.Store { return open(t, dirs[s]) },
			}.Run(t)
		})
	}
}

// Whatever is written in whatever pieces can be read in whatever pieces, and listings say how long it is.
func TestAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	s := testVault(1).Wrap(blobtest.NewMem(), "hidden")
	for i, size := range append(sizes(), r.IntN(1<<20), r.IntN(1<<16)) {
		name, want := fmt.Sprintf("hidden/%d", i), content(size)
		w, err := s.Create(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for rest := want; len(rest) > 0; {
			n := min(1+r.IntN(3*chunkSize), len(rest))
			if got, err := w.Write(rest[:n]); got != n || err != nil {
				t.Fatalf("write: %d, %v", got, err)
			}
			rest = rest[n:]
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if l, err := s.List(t.Context(), name); err != nil || len(l) != 1 || l[0].Size != int64(size) {
			t.Errorf("listing of %d bytes: %v, %v", size, l, err)
		}
		readAll(t, r, s, name, want)
	}
}

// readAll reads a blob in many ways.
func readAll(t *testing.T, r *rand.Rand, s blob.Store, name string, want []byte) {
	t.Helper()
	o, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if o.Size() != int64(len(want)) {
		t.Fatalf("%d bytes, want %d", o.Size(), len(want))
	}
	for range 300 {
		off := r.IntN(len(want) + 10)
		b := make([]byte, r.IntN(3*chunkSize), 4*chunkSize)
		if r.IntN(10) == 0 {
			b = make([]byte, r.IntN(len(want)+10))
		}
		canary := b[len(b):cap(b)]
		n, err := o.ReadAt(b, int64(off))
		left := want[min(off, len(want)):]
		if exp := min(len(b), len(left)); n != exp || !bytes.Equal(b[:n], left[:n]) {
			t.Fatalf("%d bytes at %d of %d: %d bytes, or other ones", len(b), off, len(want), n)
		}
		if (err == io.EOF) != (len(b) > len(left)) || err != nil && err != io.EOF {
			t.Fatalf("%d bytes at %d of %d: %v", len(b), off, len(want), err)
		}
		if bytes.ContainsFunc(canary, func(c rune) bool { return c != 0 }) {
			t.Fatal("bytes behind the buffer were written")
		}
	}
}

// Sizes and stored sizes say the same, and nothing else has the size of something sealed.
func TestSizes(t *testing.T) {
	for size := range int64(3*chunkSize + 10) {
		got, ok := plainSize(StoredSize(size))
		if got != size || !ok {
			t.Fatalf("%d bytes: %d, %v", size, got, ok)
		}
	}
	fits := 0
	for n := range StoredSize(3 * chunkSize) {
		if size, ok := plainSize(n); ok {
			fits++
			if StoredSize(size) != n {
				t.Fatalf("%d stored bytes cannot be of %d", n, size)
			}
		}
	}
	if fits != 3*chunkSize {
		t.Errorf("%d sizes, want %d", fits, 3*chunkSize)
	}
}

// damage is the error of what was read from a store; nil if all of want was.
func damage(t *testing.T, s blob.Store, name string, want []byte) error {
	t.Helper()
	o, err := s.Open(context.Background(), name)
	if err != nil {
		return err
	}
	defer o.Close()
	got := make([]byte, o.Size())
	if _, err := o.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: wrong bytes, and no error", name)
	}
	return nil
}

// A bit that is flipped anywhere is an error, or, in one of the two envelopes, no harm.
func TestFlips(t *testing.T) {
	v, r := testVault(1), rand.New(rand.NewPCG(rand.Uint64(), 2))
	for _, size := range []int{0, 1, chunkSize, chunkSize + 1, 2*chunkSize + 5} {
		want := content(size)
		sealed := put(t, v, "x", want)
		for at := range sealed {
			if size > 100 && at > 2*envelopeSize && at < len(sealed)-200 && at%chunkSize > 40 && r.IntN(20) > 0 {
				continue
			}
			bad := bytes.Clone(sealed)
			bad[at] ^= 1 << r.IntN(8)
			err := damage(t, stored(t, v, "x", bad), "x", want)
			inEnvelope := at < envelopeSize || at >= len(sealed)-envelopeSize
			if inEnvelope && err != nil || !inEnvelope && !errors.Is(err, blob.ErrDamaged) {
				t.Fatalf("%d bytes, a bit at %d of %d: %v", size, at, len(sealed), err)
			}
		}
	}
}

// A blob that is cut off or longer is an error, also where chunks begin.
func TestCutOff(t *testing.T) {
	v := testVault(1)
	want := content(2*chunkSize + 5)
	sealed := put(t, v, "x", want)
	long := put(t, v, "x", content(5*chunkSize))
	for n := range len(sealed) {
		if damage(t, stored(t, v, "x", sealed[:n]), "x", want) == nil {
			t.Fatalf("%d of %d bytes are enough", n, len(sealed))
		}
		// Its envelope behind what is left of it.
		cut := append(bytes.Clone(sealed[:n]), sealed[len(sealed)-envelopeSize:]...)
		if n < len(sealed)-envelopeSize && damage(t, stored(t, v, "x", cut), "x", want) == nil {
			t.Fatalf("%d of %d bytes and the envelope are enough", n, len(sealed))
		}
	}
	for n := 1; n < len(long); n += 97 {
		if damage(t, stored(t, v, "x", append(bytes.Clone(sealed), long[:n]...)), "x", want) == nil {
			t.Fatalf("%d bytes more are no error", n)
		}
	}
}

// What was sealed elsewhere is refused: chunks of the blob in another order, of other blobs, blobs of another
// name, of another store, and files beside blobs.
func TestMoved(t *testing.T) {
	v := testVault(1)
	one, other := content(3*chunkSize+9), content(3*chunkSize + 10)[1:]
	a, b := put(t, v, "a", one), put(t, v, "a", other)
	chunk := func(b []byte, i int) []byte { return b[envelopeSize+i*sealedChunk:][:sealedChunk] }
	with := func(i int, c []byte) []byte {
		out := bytes.Clone(a)
		copy(chunk(out, i), c)
		return out
	}
	for name, bad := range map[string][]byte{
		"another place":      with(0, chunk(a, 1)),
		"a blob of the name": with(1, chunk(b, 1)),
		"its envelopes": append(append(bytes.Clone(b[:envelopeSize]), a[envelopeSize:len(a)-envelopeSize]...),
			b[:envelopeSize]...),
		"another name":  put(t, v, "b", one),
		"another store": put(t, testVault(2), "a", one),
		"a file":        v.SealFile("a", one),
		"in the clear":  one,
	} {
		if err := damage(t, stored(t, v, "a", bad), "a", one); !errors.Is(err, blob.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := damage(t, stored(t, v, "a", a), "a", one); err != nil {
		t.Errorf("as it was: %v", err)
	}
	if _, err := v.OpenFile("a", a); !errors.Is(err, blob.ErrDamaged) {
		t.Errorf("a blob as a file: %v", err)
	}
}

// No nonce is used twice with a key, whatever is written, also under one name, and abandoned.
func TestNonces(t *testing.T) {
	v := testVault(1)
	used := countNonces(v)
	inner := blobtest.NewMem()
	s := v.Wrap(inner, "none")
	want := 0
	for round := range 20 {
		for i, size := range sizes() {
			name := fmt.Sprintf("b-%d", i)
			w, err := s.Create(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(content(size))
			if round%3 == 0 {
				want += max(0, int(chunksIn(int64(size)))-1) // the last one was not sealed
				_ = w.Abort()
				continue
			}
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			want += int(chunksIn(int64(size)))
			if err := s.Remove(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			v.SealFile(name, content(size))
			want += int(chunksIn(int64(size)))
		}
	}
	if used.twice > 0 || used.seals != want {
		t.Errorf("%d of %d uses of a nonce were not the first; %d are expected", used.twice, used.seals, want)
	}
	// That would be noticed.
	c := chunks{aead: v.key([saltSize]byte{}, forBlob, "x")}
	c.seal(nil, nil, true)
	c.next = 0
	if c.seal(nil, nil, true); used.twice != 1 {
		t.Error("a nonce that is used twice is not noticed")
	}
}

// What a sealed blob and its name show has nothing of what is in it.
func TestNothingShows(t *testing.T) {
	page := bytes.Repeat([]byte("secret page "), 1000)
	inner := blobtest.NewMem()
	s := testVault(1).Wrap(inner, "checkpoints")
	blobtest.Put(t, s, "checkpoints/web-server.0.ckpt", page)
	list, err := inner.List(t.Context(), "")
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, b := range [][]byte{[]byte(list[0].Name), blobtest.Get(t, inner, list[0].Name)} {
		for _, secret := range []string{"secret", "web-server", "ckpt"} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%q shows", secret)
			}
		}
	}
	// Another store has the same bytes under another name and as other bytes.
	again := blobtest.NewMem()
	blobtest.Put(t, testVault(2).Wrap(again, "checkpoints"), "checkpoints/web-server.0.ckpt", page)
	if l, _ := again.List(t.Context(), ""); l[0].Name == list[0].Name {
		t.Error("two stores show that they have the same name")
	}
}

// A file that was planted does not become a blob.
func TestPlanted(t *testing.T) {
	inner := blobtest.NewMem()
	s := testVault(1).Wrap(inner, "checkpoints")
	for _, name := range []string{"checkpoints/evil.0.ckpt", "checkpoints/AAAA", "packs/0000000001.0.pack"} {
		blobtest.Put(t, inner, name, content(5000))
	}
	if l, err := s.List(t.Context(), "checkpoints/"); len(l) != 0 || err != nil {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := s.Open(t.Context(), "checkpoints/evil.0.ckpt"); !errors.Is(err, blob.ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Open(t.Context(), "packs/0000000001.0.pack"); !errors.Is(err, blob.ErrDamaged) {
		t.Error(err)
	}
}

// Reads allocate nothing.
func TestReadsAllocateNothing(t *testing.T) {
	s := stored(t, testVault(1), "x", put(t, testVault(1), "x", content(1<<20)))
	o, err := s.Open(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for _, n := range []int{1, 2000, 5000, 100_000} {
		b, at := make([]byte, n), int64(0)
		if allocs := testing.AllocsPerRun(200, func() {
			at = (at + 4321) % (1<<20 - int64(n))
			if _, err := o.ReadAt(b, at); err != nil {
				t.Error(err)
			}
		}); allocs > 0.5 { // a garbage collection may empty the pool
			t.Errorf("%v allocations of a read of %d bytes", allocs, n)
		}
	}
}

func FuzzOpenFile(f *testing.F) {
	v := testVault(1)
	f.Add(v.SealFile("x", content(100)))
	f.Add(v.SealFile("x", content(chunkSize+1)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := v.OpenFile("x", b)
		if err == nil && len(got) != 100 && len(got) != chunkSize+1 {
			t.Errorf("%d bytes that nobody sealed", len(got))
		}
	})
}

func BenchmarkObject(b *testing.B) {
	v := testVault(1)
	for _, n := range []int{2000, 32 << 10, 1 << 20} {
		want := content(8 << 20)
		inner := blobtest.NewMem()
		blobtest.Put(b, inner, "x", want)
		sealed := stored(b, v, "x", put(b, v, "x", want))
		for name, s := range map[string]blob.Store{"plain": inner, "sealed": sealed} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				o, err := s.Open(b.Context(), "x")
				if err != nil {
					b.Fatal(err)
				}
				defer o.Close()
				buf, at := make([]byte, n), int64(0)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					at = (at + 1234567) % (8<<20 - int64(n))
					if _, err := o.ReadAt(buf, at); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	v, page := testVault(1), content(1<<20)
	b.SetBytes(int64(len(page)))
	w := newWriter(v, nowhere{}, "x")
	for b.Loop() {
		_, _ = w.Write(page)
	}
}

// nowhere is a blob that keeps nothing.
type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Commit() error               { return nil }
func (nowhere) Abort() error                { return nil }
