package guestmem

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// compressed compresses data.
func compressed(t testing.TB, format string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w interface {
		Write([]byte) (int, error)
		Close() error
	}
	var err error
	switch format {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	case "xz":
		w, err = xz.NewWriter(&b)
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCompressed: what is in a compressed file is recognised as if it were not compressed.
func TestCompressed(t *testing.T) {
	m := whole(1, 256<<10)
	for _, format := range []string{"gzip", "zstd", "xz"} {
		for name, data := range map[string][]byte{
			"bare": m.bytes, "core": writeCore(m, coreOptions{}), "qemu": writeQEMU(m, streamOptions{live: true}),
			"twice": compressed(t, "gzip", writeLime(m)),
		} {
			data := compressed(t, format, data)
			s, _ := bothWays(t, data, m.bytes)
			if !strings.HasPrefix(s.Saw, "compressed by "+format+": ") {
				t.Errorf("%s, %s: %q", format, name, s.Saw)
			}
			refusedBothWays(t, name+" cut, "+format, data[:len(data)-1], "")
			refusedBothWays(t, name+" cut in the middle, "+format, data[:len(data)/2], "")
			flipped := bytes.Clone(data)
			flipped[len(data)/2] ^= 4
			refusedBothWays(t, name+" damaged, "+format, flipped, "")
		}
		refusedBothWays(t, "a disk, "+format, compressed(t, format, append([]byte("QFI\xfb"), m.bytes...)), "qcow2")
		odd := compressed(t, format, m.bytes[:5000])
		refusedBothWays(t, "odd, "+format, odd, "4096")
	}
	many := m.bytes
	for range maxNested + 1 {
		many = compressed(t, "gzip", many)
	}
	refusedBothWays(t, "again and again", many, "again and again")
}

// TestBzip2: a page of the letter a, made by bzip2.
func TestBzip2(t *testing.T) {
	data, err := base64.StdEncoding.DecodeString(
		"QlpoOTFBWSZTWbcvua8AAApBAIAEIAAACCAAMMwFU2piCgPF3JFOFCQty+5rwA==")
	if err != nil {
		t.Fatal(err)
	}
	bothWays(t, data, bytes.Repeat([]byte("a"), PageSize))
	refusedBothWays(t, "damaged", append(bytes.Clone(data[:20]), data[21:]...), "bzip2")
}

// endless is what becomes of a small file that was compressed again and again.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestDecompressedEndlessly: what is passed over ends with the context.
func TestDecompressedEndlessly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for what, pass := range map[string]func(in *input){
		"skipped": func(in *input) { in.skip(1 << 62) }, "behind the end": func(*input) {},
	} {
		in := newStreamInput("stream", endless{})
		s := drained(streamFunc(func(context.Context, func(uint64, []byte) error) (End, error) {
			pass(in)
			return End{}, in.err
		}), in)
		if _, err := s.Read(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestXZMemory: a dictionary that needs too much memory is refused.
func TestXZMemory(t *testing.T) {
	data := compressed(t, "xz", make([]byte, 1<<20))
	data[16] = 40
	refusedBothWays(t, "4 GiB", data, "256 MiB")
	// A page of the letter a, made by "xz -T2 -9": the header of the block has its sizes.
	data, err := base64.StdEncoding.DecodeString("/Td6WFoAAATm1rRGBMAhgCAhARwAAAAAAAAAABlh4rbgD/8AGV0AMO/7v/6j" +
		"sV7l+D+yqiZV+GhwQXAVDiQYzwAAAAAppg1Zm+UQgwABPYAgAAAAAt9larHEZ/sCAAAAAARZWg==")
	if err != nil {
		t.Fatal(err)
	}
	bothWays(t, data, bytes.Repeat([]byte("a"), PageSize))
	data[19] = 40
	binary.LittleEndian.PutUint32(data[28:], crc32.ChecksumIEEE(data[12:28]))
	refusedBothWays(t, "4 GiB, with sizes", data, "256 MiB")

	// Not only in the first block of the first stream: everything before is passed on as it is.
	small, large := compressed(t, "xz", randomBytes(300_000)), compressed(t, "xz", make([]byte, 1<<20))
	large[16] = 40
	room := make([]byte, 8)
	refusedBothWays(t, "4 GiB, second stream", slices.Concat(small, large), "256 MiB")
	refusedBothWays(t, "4 GiB, third stream", slices.Concat(small, small, room, large), "256 MiB")
	var many bytes.Buffer
	w, err := xz.WriterConfig{BlockSize: 10_000}.NewWriter(&many)
	if err != nil {
		t.Fatal(err)
	}
	content := append(randomBytes(500_000), make([]byte, 500_000-500_000%PageSize+PageSize)...)
	content = content[:len(content)/PageSize*PageSize]
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	bothWays(t, many.Bytes(), content)
	bothWays(t, slices.Concat(many.Bytes(), room, many.Bytes()), slices.Concat(content, content))
	// The header of the last block: it has the same bytes as that of the first.
	data = many.Bytes()
	last := bytes.LastIndex(data, data[12:24])
	if last < 100_000 {
		t.Fatalf("the last block begins at %d", last)
	}
	data[last+4] = 40
	refusedBothWays(t, "4 GiB, last block", data, "256 MiB")
}

// A window that takes much memory is no damage, and there is something to be done about it.
func TestDecompressHint(t *testing.T) {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(512<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1<<20)); err != nil { // no Close yet: so the frame does not tell its size
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	large := compressed(t, "xz", make([]byte, 1<<20))
	large[16] = 40
	for name, data := range map[string][]byte{"zstd": b.Bytes(), "xz": large} {
		_, err := OpenStream("x", bytes.NewReader(data), false)
		var bad *FormatError
		if !errors.As(err, &bad) || !errors.Is(err, errWindow) || !strings.Contains(bad.Do, "import STORE -") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// randomBytes are bytes that no compression makes smaller.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// writeLibvirt writes a save file.
func writeLibvirt(t testing.TB, m *machine, format uint32, big bool) []byte {
	domain := "<domain type='qemu'/>\x00<cookie/>\x00" + strings.Repeat("\x00", 1000)
	var order binary.ByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	var b bytes.Buffer
	b.WriteString("LibvirtQemudSave")
	_ = binary.Write(&b, order, []uint32{2, uint32(len(domain)), 1, format, 22})
	b.Write(make([]byte, 56))
	b.WriteString(domain)
	names := map[uint32]string{1: "gzip", 3: "xz", 5: "zstd"}
	switch {
	case names[format] != "":
		b.Write(compressed(t, names[format], writeQEMU(m, streamOptions{live: true})))
	case format == 6:
		return append(b.Bytes(), writeQEMU(m, streamOptions{mapped: true, at: b.Len()})[b.Len():]...)
	default:
		b.Write(writeQEMU(m, streamOptions{live: true}))
	}
	return b.Bytes()
}

func TestLibvirt(t *testing.T) {
	m := whole(2, 256<<10)
	for format, name := range map[uint32]string{0: "raw", 1: "gzip", 3: "xz", 5: "zstd", 6: "sparse"} {
		data := writeLibvirt(t, m, format, format == 1)
		s, stream := bothWays(t, data, m.bytes)
		if s.Format != "libvirt" || !strings.Contains(s.Saw, "("+name+")") || (s.Reading != "") != (format == 6) {
			t.Errorf("%s: %+v", name, s)
		}
		var texts []map[string]string
		for _, s := range []*Saved{s, stream} {
			files := map[string]string{}
			for file, path := range s.Files {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if len(text) > 0 {
					files[file] = string(text)
				}
			}
			texts = append(texts, files)
		}
		if d := cmp.Diff(texts[0], texts[1]); d != "" {
			t.Error(d)
		}
		if texts[0][domainFile] != "<domain type='qemu'/>" ||
			!strings.HasPrefix(string(data), texts[0][saveHeaderFile]) {
			t.Errorf("%s: %q", name, texts[0][domainFile])
		}
		if want := string(writeQEMU(m, streamOptions{noRAM: true})); format != 6 && texts[0][stateFile] != want {
			t.Errorf("%s: the state has %d bytes, want %d", name, len(texts[0][stateFile]), len(want))
		}
	}
}

func TestLibvirtRefused(t *testing.T) {
	m := whole(3, 256<<10)
	le := binary.LittleEndian
	plain := writeLibvirt(t, m, 0, false)
	for name, c := range map[string]struct {
		change func([]byte) []byte
		words  string
	}{
		"part":           {func(b []byte) []byte { copy(b, "LibvirtQemudPart"); return b }, "its end"},
		"version":        {func(b []byte) []byte { le.PutUint32(b[16:], 3); return b }, "version 3"},
		"not lzop":       {func(b []byte) []byte { le.PutUint32(b[28:], 4); return b }, "lzop"},
		"unknown format": {func(b []byte) []byte { le.PutUint32(b[28:], 99); return b }, "format 99"},
		"wrong format":   {func(b []byte) []byte { le.PutUint32(b[28:], 5); return b }, ""},
		"huge domain":    {func(b []byte) []byte { le.PutUint32(b[20:], 1<<31); return b }, "2147483648"},
		"long domain":    {func(b []byte) []byte { le.PutUint32(b[20:], 60<<20); return b }, "cut short"},
		"short domain":   {func(b []byte) []byte { le.PutUint32(b[20:], 5); return b }, "no end"},
		"other length":   {func(b []byte) []byte { le.PutUint32(b[20:], 500); return b }, "magic"},
		"cut header":     {func(b []byte) []byte { return b[:50] }, "cut short"},
		"cut":            {func(b []byte) []byte { return b[:len(b)-5] }, "cut short"},
	} {
		refusedBothWays(t, name, c.change(bytes.Clone(plain)), c.words)
	}
}

func FuzzLibvirt(f *testing.F) {
	m := newMachine(5, 0x4000, span{0x1000, 0x1000})
	for _, format := range []uint32{0, 1, 5, 6} {
		f.Add(writeLibvirt(f, m, format, format == 1))
	}
	f.Fuzz(agree)
}

func FuzzCompressed(f *testing.F) {
	m := newMachine(5, 0x4000, span{0x1000, 0x1000})
	for _, format := range []string{"gzip", "xz", "zstd"} {
		f.Add(compressed(f, format, m.bytes))
		f.Add(compressed(f, format, writeLime(m)))
	}
	f.Fuzz(agree)
}
