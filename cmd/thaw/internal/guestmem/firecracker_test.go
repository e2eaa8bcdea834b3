package guestmem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// writeVMState writes a vmstate. The state behind what is read is any bytes.
func writeVMState(magic uint64, encoding, version string, mib uint64) []byte {
	le := binary.LittleEndian
	b := le.AppendUint64(nil, magic)
	switch encoding {
	case "bincode":
		b = le.AppendUint64(b, uint64(len(version)))
		b = le.AppendUint64(append(b, version...), mib)
	case "bitcode":
		b = append(append(b, byte(len(version))), version...)
	default:
		b = append(b, 1, 0)
	}
	b = append(b, bytes.Repeat([]byte("state of the machine"), 100)...)
	return le.AppendUint64(b, fcCRC(b))
}

func TestFirecrackerCRC(t *testing.T) {
	if got := fcCRC([]byte("123456789")); got != 0xe9c6d914c4b8d9ca {
		t.Errorf("the check value of CRC-64/Jones is %#x", got)
	}
	if b := writeVMState(fcMagicX86, "bincode", "8.0.0", 4); fcCRC(b) != 0 {
		t.Error("the CRC of a file that ends with its CRC is not 0")
	}
}

// snapshot writes a directory with a vmstate and a memory.
func snapshot(t *testing.T, state, memory []byte) string {
	t.Helper()
	dir := t.TempDir()
	writeAt(t, filepath.Join(dir, "snap"), state)
	writeAt(t, filepath.Join(dir, "mem"), memory)
	return dir
}

func TestFirecracker(t *testing.T) {
	m := whole(1, 4<<20)
	copy(m.bytes, "\x7fELF\x02\x01\x01") // page 0 is the guest's: a pair is known by its vmstate
	for _, c := range []struct {
		magic             uint64
		encoding, version string
		mib               uint64
		saw               string
		gpa               uint64
	}{
		{fcMagicX86, "bincode", "1.0.0", 4, "Firecracker 1.7 for x86_64", 0},
		{fcMagicX86, "bincode", "8.0.0", 4, "Firecracker 1.13 and 1.14 for x86_64 (version 8.0.0)", 0},
		{fcMagicARM, "bincode", "6.0.0", 4, "Firecracker 1.12 for aarch64", 2 << 30},
		{fcMagicX86, "bitcode", "10.0.0", 0, "Firecracker 1.16 for x86_64", 0},
		{fcMagicX86, "bincode", "77.1.0", 4, "version 77.1.0, of a release that is not known", 0},
		{fcMagicX86, "versionize", "", 0, "in a version that is not known", 0},
	} {
		s := mustOpen(t, snapshot(t, writeVMState(c.magic, c.encoding, c.version, c.mib), m.bytes), Options{})
		got, err := contents(s.Memory)
		sameImage(t, c.saw, got, err, m.bytes)
		if !strings.Contains(s.Saw, c.saw) || s.Reading != "" || s.VMM != "firecracker" {
			t.Errorf("%q does not say %q; %+v", s.Saw, c.saw, s)
		}
		if d := cmp.Diff([]Region{{c.gpa, 4 << 20, 0}}, s.Regions); d != "" {
			t.Error(d)
		}
		state, err := os.ReadFile(s.Files["vmstate"])
		if err != nil || !bytes.Equal(state, writeVMState(c.magic, c.encoding, c.version, c.mib)) {
			t.Errorf("vmstate: %v", err)
		}
	}
}

// TestFirecrackerNames: whatever the files are called and wherever they lie.
func TestFirecrackerNames(t *testing.T) {
	state, m := writeVMState(fcMagicX86, "bincode", "8.0.0", 1), whole(2, 1<<20)
	a, b := writeFile(t, "one", state), writeFile(t, "two", m.bytes)
	for name, open := range map[string]func() (*Saved, error){
		"both": func() (*Saved, error) {
			return Open(t.Context(), t.TempDir(), Options{VMState: a, Memory: b})
		},
		"from memory": func() (*Saved, error) { return Open(t.Context(), b, Options{VMState: a}) },
		"from state":  func() (*Saved, error) { return Open(t.Context(), a, Options{Memory: b}) },
		"in another":  func() (*Saved, error) { return Open(t.Context(), filepath.Dir(a), Options{Memory: b}) },
		"by size": func() (*Saved, error) {
			dir := t.TempDir()
			writeAt(t, filepath.Join(dir, "a"), state)
			writeAt(t, filepath.Join(dir, "b"), m.bytes)
			writeAt(t, filepath.Join(dir, "disk"), make([]byte, 2<<20))
			return Open(t.Context(), dir, Options{})
		},
		"named memory": func() (*Saved, error) {
			dir := t.TempDir()
			writeAt(t, filepath.Join(dir, "a"), state)
			writeAt(t, filepath.Join(dir, "memory"), m.bytes)
			return Open(t.Context(), dir, Options{})
		},
	} {
		s, err := open()
		if err != nil || s == nil {
			t.Errorf("%s: %v, %v", name, s, err)
			continue
		}
		got, err := contents(s.Memory)
		sameImage(t, name, got, err, m.bytes)
		_ = s.Close()
	}
}

func TestFirecrackerRefused(t *testing.T) {
	state := writeVMState(fcMagicX86, "bincode", "6.0.0", 1)
	m := whole(3, 1<<20).bytes
	flipped := bytes.Clone(state)
	flipped[40] ^= 1
	huge := append(bytes.Clone(state), make([]byte, fcMaxState)...)
	untold := writeVMState(fcMagicX86, "bitcode", "10.0.0", 0)
	for name, c := range map[string]struct {
		dir   string
		o     Options
		words string
	}{
		"damaged":        {dir: snapshot(t, flipped, m), words: "checksum"},
		"cut state":      {dir: snapshot(t, state[:len(state)-1], m), words: "checksum"},
		"short state":    {dir: snapshot(t, state[:20], m), words: "cut short"},
		"huge state":     {dir: snapshot(t, huge, m), words: "more than"},
		"cut memory":     {dir: snapshot(t, state, m[:len(m)-PageSize]), words: "cut short"},
		"odd memory":     {dir: snapshot(t, untold, m[:5000]), words: "not clear"},
		"longer memory":  {dir: snapshot(t, state, append(bytes.Clone(m), m...)), words: "the vmstate says"},
		"the state only": {dir: writeFile(t, "snap", state), words: "another file"},
		"no memory":      {dir: filepath.Dir(writeFile(t, "snap", state)), words: "not clear"},
		"not a state":    {dir: writeFile(t, "x", m), o: Options{VMState: writeFile(t, "y", m)}, words: "magic"},
		"no state at all": {dir: filepath.Dir(writeFile(t, "x", m)), o: Options{Memory: writeFile(t, "y", m)},
			words: "missing"},
	} {
		s, err := Open(t.Context(), c.dir, c.o)
		if s != nil {
			t.Errorf("%s was opened", name)
		}
		refusal(t, name, err, c.words)
	}
	dir := snapshot(t, state, m)
	writeAt(t, filepath.Join(dir, "second"), state)
	_, err := Open(t.Context(), dir, Options{})
	refusal(t, "two vmstates", err, "both")
	s := mustOpen(t, dir, Options{VMState: filepath.Join(dir, "second")})
	if got, err := contents(s.Memory); err != nil || !bytes.Equal(got, m) {
		t.Errorf("the one that was named: %v", err)
	}
}

// TestFirecrackerRegions: where memory lies depends on the release and on the architecture.
func TestFirecrackerRegions(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		arch, version string
		size          int64
		want          []Region
	}{
		{archX86, "6.0.0", 8 * gib, []Region{{0, 0xD000_0000, 0}, {4 * gib, 8*gib - 0xD000_0000, 0xD000_0000}}},
		{archX86, "8.0.0", 8 * gib, []Region{{0, 3 * gib, 0}, {4 * gib, 5 * gib, 3 * gib}}},
		{archX86, "8.0.0", 300 * gib, []Region{{0, 3 * gib, 0}, {4 * gib, 252 * gib, 3 * gib},
			{512 * gib, 45 * gib, 255 * gib}}},
		{archX86, "", 2 * gib, []Region{{0, 2 * gib, 0}}},
		{archX86, "", 4 * gib, nil},
		{archARM, "6.0.0", 300 * gib, []Region{{2 * gib, 300 * gib, 0}}},
		{archARM, "10.0.0", 300 * gib, []Region{{2 * gib, 254 * gib, 0}, {512 * gib, 46 * gib, 254 * gib}}},
	} {
		if d := cmp.Diff(c.want, fcState{arch: c.arch, version: c.version}.regions(c.size)); d != "" {
			t.Errorf("%+v: %s", c, d)
		}
	}
}

// sparseFile writes some pages of a file, zeros too, and leaves holes.
func sparseFile(t *testing.T, path string, image []byte, pages map[int64]bool) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for p := range pages {
		if _, err := f.WriteAt(image[p*PageSize:(p+1)*PageSize], p*PageSize); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(int64(len(image))), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// imageMemory is an image in RAM; its extents are its pages that are not zero.
type imageMemory []byte

func (m imageMemory) Size() int64 { return int64(len(m)) }

func (m imageMemory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

func (m imageMemory) Extents() ([]Run, error) {
	var out runs
	for at := int64(0); at < int64(len(m)); at += PageSize {
		if !bytes.Equal(m[at:at+PageSize], zeroPage) {
			out.add(at, at+PageSize)
		}
	}
	return out, nil
}

// TestFirecrackerDiff: holes are the parent's pages, zeros are zeros.
func TestFirecrackerDiff(t *testing.T) {
	parent, now := whole(4, 1<<20).bytes, whole(5, 1<<20).bytes
	changed := map[int64]bool{}
	for _, p := range []int64{0, 3, 4, 5, 77, 80, 255} {
		changed[p] = true
	}
	clear(now[77*PageSize : 78*PageSize]) // freed since; zeros in the file
	want := bytes.Clone(parent)
	for p := range changed {
		copy(want[p*PageSize:(p+1)*PageSize], now[p*PageSize:])
	}
	dir := t.TempDir()
	sparseFile(t, filepath.Join(dir, "mem"), now, changed)
	writeAt(t, filepath.Join(dir, "vmstate"), writeVMState(fcMagicX86, "bincode", "8.0.0", 1))
	for _, path := range []string{dir, filepath.Join(dir, "mem")} {
		s := mustOpen(t, path, Options{Diff: true})
		if !s.IsDiff() || s.Memory != nil {
			t.Fatalf("%+v", s)
		}
		if err := s.Over(imageMemory(parent)); err != nil {
			t.Fatal(err)
		}
		got, err := contents(s.Memory)
		sameImage(t, path, got, err, want)
		// Reads of any length, from anywhere.
		for off := int64(0); off < int64(len(want)); off += 7 * PageSize {
			p := make([]byte, 50*PageSize)
			n, err := s.Memory.ReadAt(p, off)
			if !bytes.Equal(p[:n], want[off:min(off+int64(len(p)), int64(len(want)))]) {
				t.Errorf("read at %d: %d bytes, %v", off, n, err)
			}
		}
		refusal(t, "another size", s.Over(imageMemory(parent[:1<<19])), "the parent")
	}
	// Without --parent it is a full memory, with a warning.
	if s := mustOpen(t, dir, Options{}); !strings.Contains(s.Warning, "--parent") {
		t.Errorf("no warning: %q", s.Warning)
	}
	full := map[int64]bool{}
	for p := range int64(256) {
		full[p] = true
	}
	sparseFile(t, filepath.Join(dir, "mem"), now, full)
	_, err := Open(t.Context(), dir, Options{Diff: true})
	refusal(t, "without holes", err, "no holes")
	if s := mustOpen(t, dir, Options{}); s.Warning != "" {
		t.Errorf("a full memory: %q", s.Warning)
	}
	_, err = Open(t.Context(), writeFile(t, "core", writeCore(small(1), coreOptions{})), Options{Diff: true})
	refusal(t, "a core", err, "has a parent")
}

// TestCoarse: a file system that tells holes in large blocks is refused, and so is one that is not known.
func TestCoarse(t *testing.T) {
	for _, c := range []struct {
		kind, block int64
		fine        bool
	}{
		{unix.EXT4_SUPER_MAGIC, 4096, true}, {unix.XFS_SUPER_MAGIC, 1024, true}, {unix.TMPFS_MAGIC, 4096, true},
		{unix.XFS_SUPER_MAGIC, 65536, false}, {0x2fc12fc1, 4096, false}, {unix.NFS_SUPER_MAGIC, 4096, false},
	} {
		if err := coarse(c.kind, c.block); (err == nil) != c.fine {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func FuzzVMState(f *testing.F) {
	for _, e := range []string{"bincode", "bitcode", "versionize"} {
		f.Add(writeVMState(fcMagicX86, e, "8.0.0", 128))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readVMState(b)
		if len(b) >= 24 { // the same with a right checksum, behind which most of the parser is
			b = binary.LittleEndian.AppendUint64(b[:len(b)-8:len(b)-8], fcCRC(b[:len(b)-8]))
			s, err = readVMState(b)
		}
		if err != nil {
			return
		}
		for _, size := range []int64{1 << 20, 4 << 30, 300 << 30} {
			sum := uint64(0)
			for _, r := range s.regions(size) {
				sum += r.Bytes
			}
			if sum != uint64(size) && sum != 0 {
				t.Errorf("regions of %d bytes, not %d", sum, size)
			}
		}
		_ = s.saw(true)
	})
}
