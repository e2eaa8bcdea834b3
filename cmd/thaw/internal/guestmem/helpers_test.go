package guestmem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// machine is guest memory as tests know it: bytes by address; what is not named is zero.
type machine struct {
	size   int64
	ranges []span
	bytes  []byte // of the whole size
}

// span is a part of the memory.
type span struct{ at, n int64 }

// newMachine fills ranges of a memory of so many bytes. Some pages of them are zero.
func newMachine(seed uint64, size int64, ranges ...span) *machine {
	m := &machine{size: size, ranges: ranges, bytes: make([]byte, size)}
	r := rand.NewChaCha8([32]byte{byte(seed)})
	for _, s := range ranges {
		for at := s.at; at < s.at+s.n; at += PageSize {
			if at/PageSize%3 != 2 {
				_, _ = r.Read(m.bytes[at:min(at+PageSize, s.at+s.n)])
			}
		}
	}
	return m
}

// small is a machine of some ranges, of which two are not whole pages.
func small(seed uint64) *machine {
	return newMachine(seed, 4<<20, span{0x1000, 0x9ec00}, span{0x100000, 0x150000}, span{0x300000, 0xff800})
}

// whole is a machine whose memory is one range.
func whole(seed uint64, size int64) *machine { return newMachine(seed, size, span{0, size}) }

func (m *machine) part(s span) []byte { return m.bytes[s.at : s.at+s.n] }

// writeFile puts data into a new file; zero pages become holes.
func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	writeAt(t, path, data)
	return path
}

func writeAt(t testing.TB, path string, data []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(data); off += PageSize {
		b := data[off:min(off+PageSize, len(data))]
		if bytes.Count(b, []byte{0}) == len(b) {
			continue
		}
		if _, err := f.WriteAt(b, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(int64(len(data))), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// mustOpen opens a path that is of a known format.
func mustOpen(t testing.TB, path string, o Options) *Saved {
	t.Helper()
	s, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	if s == nil {
		t.Fatalf("%s was not recognised", path)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// contents reads an image as an import does: its extents only, in parts of some pages.
func contents(m Memory) ([]byte, error) {
	if m.Size()%PageSize != 0 || m.Size() > 1<<28 {
		return nil, fmt.Errorf("a memory of %d bytes", m.Size())
	}
	all := make([]byte, m.Size())
	runs, err := m.Extents()
	if err != nil {
		return nil, err
	}
	end := uint64(0)
	for _, r := range runs {
		if r.First < end || r.Count == 0 || r.First+r.Count > uint64(m.Size())/PageSize {
			return nil, fmt.Errorf("extent %+v behind page %d", r, end)
		}
		end = r.First + r.Count
		for at := r.First; at < end; at += 5 {
			b := all[at*PageSize : min(at+5, end)*PageSize]
			for i := range b {
				b[i] = 0xa5 // what ReadAt has to overwrite
			}
			if n, err := m.ReadAt(b, int64(at)*PageSize); n < len(b) || err != nil && err != io.EOF {
				return nil, fmt.Errorf("read %d bytes at page %d: %d, %w", len(b), at, n, err)
			}
		}
	}
	return all, nil
}

// streamed reads a stream into memory.
func streamed(s Stream) ([]byte, End, error) {
	all := map[uint64][]byte{}
	end, err := s.Read(context.Background(), func(first uint64, pages []byte) error {
		if len(pages) == 0 || len(pages)%PageSize != 0 {
			return fmt.Errorf("%d bytes", len(pages))
		}
		for ; len(pages) > 0; pages = pages[PageSize:] {
			all[first] = bytes.Clone(pages[:PageSize])
			first++
		}
		return nil
	})
	if err != nil {
		return nil, end, err
	}
	if end.Size < 0 || end.Size%PageSize != 0 || end.Size > 1<<28 {
		return nil, end, fmt.Errorf("a memory of %d bytes", end.Size)
	}
	b := make([]byte, end.Size)
	for n, p := range all {
		if n >= uint64(end.Size)/PageSize {
			return nil, end, fmt.Errorf("page %d of %d bytes", n, end.Size)
		}
		copy(b[n*PageSize:], p)
	}
	return b, end, nil
}

// sameImage compares an image with what it has to be.
func sameImage(t testing.TB, what string, got []byte, err error, want []byte) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
		return
	}
	for at := 0; at < len(want); at += PageSize {
		if !bytes.Equal(got[at:at+PageSize], want[at:at+PageSize]) {
			k := 0
			for got[at+k] == want[at+k] {
				k++
			}
			t.Errorf("%s: page %d is not what was saved, from its byte %d on: %x, want %x", what, at/PageSize, k,
				got[at+k:at+min(k+8, PageSize)], want[at+k:at+min(k+8, PageSize)])
			return
		}
	}
}

// bothWays opens a file of some format as a file and as a stream, and compares the memory with the machine's.
func bothWays(t *testing.T, data, want []byte) (file, stream *Saved) {
	t.Helper()
	path := writeFile(t, "saved", data)
	file = mustOpen(t, path, Options{})
	if file.Memory != nil {
		got, err := contents(file.Memory)
		sameImage(t, "file", got, err, want)
	} else {
		got, _, err := streamed(file.Stream)
		sameImage(t, "file", got, err, want)
	}
	stream, err := OpenStream("stream", bytes.NewReader(data), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	got, _, err := streamed(stream.Stream)
	sameImage(t, "stream", got, err, want)
	return file, stream
}

// refusedBothWays expects a *FormatError, whose text has some words, of a file and of a stream.
func refusedBothWays(t *testing.T, what string, data []byte, words string) {
	t.Helper()
	s, err := Open(t.Context(), writeFile(t, "saved", data), Options{})
	if s != nil {
		if s.Stream != nil {
			_, _, err = streamed(s.Stream)
		} else if err == nil {
			_, err = contents(s.Memory)
		}
		_ = s.Close()
	}
	refusal(t, what+", file", err, words)
	s, err = OpenStream("stream", bytes.NewReader(data), false)
	if s != nil {
		_, _, err = streamed(s.Stream)
		_ = s.Close()
	}
	refusal(t, what+", stream", err, words)
}

func refusal(t *testing.T, what string, err error, words string) {
	t.Helper()
	if _, ok := errors.AsType[*FormatError](err); !ok {
		t.Errorf("%s: %v is no FormatError", what, err)
		return
	}
	if !bytes.Contains([]byte(err.Error()), []byte(words)) {
		t.Errorf("%s: %q does not say %q", what, err, words)
	}
}

// fuzzBytes bounds the memory that fuzzing reads.
const fuzzBytes = 4 << 20

// agree is what fuzzing checks: a file is refused, or its memory can be read, and a stream of the same bytes
// has the same memory or is refused.
func agree(t *testing.T, data []byte) {
	f, err := memFile("fuzzed")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), f.Name(), Options{})
	if err != nil || s == nil {
		return
	}
	defer s.Close()
	var image []byte
	switch {
	case s.Memory == nil:
		image, _, err = streamed(s.Stream)
	case s.Memory.Size() > fuzzBytes:
		return
	default:
		if image, err = contents(s.Memory); err != nil {
			t.Errorf("what was opened cannot be read: %v", err)
		}
	}
	st, serr := OpenStream("stream", bytes.NewReader(data), false)
	if serr != nil {
		return
	}
	defer st.Close()
	other, _, serr := streamed(st.Stream)
	if err == nil && serr == nil && !bytes.Equal(image, other) {
		t.Errorf("a file and a stream of the same bytes have another memory: %d and %d bytes", len(image),
			len(other))
	}
}
