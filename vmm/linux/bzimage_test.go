package linux

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// testImage is a bzImage made here: a setup header as in Linux, and random bytes as kernel.
type testImage struct {
	version       uint16
	setupSects    byte
	relocatable   byte
	xloadflags    uint16
	alignment     uint32
	initSize      uint32
	prefAddress   uint64
	initrdAddrMax uint32
	cmdlineSize   uint32
	protected     []byte
	change        func(file []byte) // afterwards
}

func sampleImage() testImage {
	var protected []byte
	for len(protected) < mib+4321 {
		protected = le.AppendUint64(protected, rand.Uint64()|1)
	}
	return testImage{version: 0x020f, setupSects: 27, relocatable: 1,
		xloadflags: xlfKernel64 | xlfLoadedAbove4GB, alignment: 2 * mib, initSize: 20 * mib,
		prefAddress: 16 * mib, initrdAddrMax: 0x7fff_ffff, cmdlineSize: 2047, protected: protected}
}

// unknownField is where a later version of the header could have something for the kernel.
const unknownField = 0x26c

func (i testImage) file() []byte {
	sectors := int(i.setupSects)
	if sectors == 0 {
		sectors = 4
	}
	b := make([]byte, (sectors+1)*sectorSize)
	b[hdrSetupSects] = i.setupSects
	le.PutUint32(b[hdrSysSize:], uint32(len(i.protected)/16))
	le.PutUint16(b[hdrBootFlag:], bootFlag)
	b[hdrJump], b[hdrJump+1] = 0xeb, unknownField+4-hdrMagic
	copy(b[hdrMagic:], "HdrS")
	le.PutUint16(b[hdrVersion:], i.version)
	b[hdrLoadFlags] = loadedHigh
	le.PutUint32(b[hdrInitrdAddrMax:], i.initrdAddrMax)
	le.PutUint32(b[hdrKernelAlignment:], i.alignment)
	b[hdrRelocatable] = i.relocatable
	le.PutUint16(b[hdrXLoadFlags:], i.xloadflags)
	le.PutUint32(b[hdrCmdlineSize:], i.cmdlineSize)
	le.PutUint64(b[hdrPrefAddress:], i.prefAddress)
	le.PutUint32(b[hdrInitSize:], i.initSize)
	le.PutUint32(b[unknownField:], 0x1234_5678)
	b[bpE820Entries] = 99  // setup code's own bytes, not to be taken over
	b[unknownField+8] = 99 // behind the header
	b = append(b, i.protected...)
	if i.change != nil {
		i.change(b)
	}
	return b
}

func reader(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

func TestBzImage(t *testing.T) {
	image := sampleImage()
	file, initrd := image.file(), []byte(strings.Repeat("initrd", 3000))
	m := newGuestMemory(ramOf(256 * mib))
	e, err := Load(m, Config{Kernel: reader(file), Initrd: reader(initrd), Cmdline: "console=ttyS0",
		RAM: m.ram, RSDP: 0xe_0000})
	if err != nil {
		t.Fatal(err)
	}
	checkEntry(t, m, e)
	if e.Regs.RIP != 16*mib+0x200 || e.Kernel != (Range{16 * mib, 20 * mib}) {
		t.Errorf("entry %#x, kernel %#x", e.Regs.RIP, e.Kernel)
	}
	if !bytes.Equal(m.read(16*mib, uint64(len(image.protected))), image.protected) {
		t.Error("the kernel in memory is not that of the file")
	}
	if want := uint64(256*mib-len(initrd)) &^ (pageSize - 1); e.Initrd.Start != want {
		t.Errorf("initrd at %#x, want %#x", e.Initrd.Start, want)
	}
	if !bytes.Equal(m.read(e.Initrd.Start, e.Initrd.Size), initrd) {
		t.Error("the initrd in memory is not that of the file")
	}
	if got := string(m.read(cmdlineAddr, 14)); got != "console=ttyS0\x00" {
		t.Errorf("command line %q", got)
	}
	checkZeroPage(t, m.read(e.Regs.RSI, zeroPageSize), e, file)
}

// checkZeroPage compares with the header in the file, but for what a loader fills in.
func checkZeroPage(t *testing.T, zero []byte, e Entry, file []byte) {
	t.Helper()
	want := make([]byte, zeroPageSize)
	copy(want[hdrStart:unknownField+4], file[hdrStart:])
	want[hdrTypeOfLoader] = 0xff
	want[hdrLoadFlags] = loadedHigh | canUseHeap
	le.PutUint16(want[hdrHeapEndPtr:], 0xfe00)
	le.PutUint32(want[hdrCode32Start:], uint32(e.Kernel.Start))
	le.PutUint32(want[hdrRamdiskImage:], uint32(e.Initrd.Start))
	le.PutUint32(want[hdrRamdiskSize:], uint32(e.Initrd.Size))
	le.PutUint32(want[hdrCmdLinePtr:], cmdlineAddr)
	le.PutUint64(want[bpACPIRSDPAddr:], 0xe_0000)
	want[bpE820Entries] = 4
	at := want[bpE820Table:]
	for _, r := range []struct {
		start, end uint64
		kind       uint32
	}{{0, 0x9_fc00, 1}, {0x9_fc00, 0xa_0000, 2}, {0xe_0000, 0x10_0000, 2}, {0x10_0000, 256 * mib, 1}} {
		le.PutUint64(at, r.start)
		le.PutUint64(at[8:], r.end-r.start)
		le.PutUint32(at[16:], r.kind)
		at = at[e820EntrySize:]
	}
	for i := range want {
		if zero[i] != want[i] {
			t.Errorf("zero page: byte %#x is %#02x, want %#02x", i, zero[i], want[i])
		}
	}
}

// TestKernelPlace: where the kernel goes, and whether it fits.
func TestKernelPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testImage)
		config Config
		at     uint64 // 0: it does not fit
	}{
		{"preferred", nil, Config{RAM: ramOf(64 * mib)}, 16 * mib},
		{"just fits", nil, Config{RAM: ramOf(36 * mib)}, 16 * mib},
		{"does not fit", nil, Config{RAM: ramOf(36*mib - pageSize)}, 0},
		{"aligned", func(i *testImage) { i.prefAddress = 16*mib + 1 }, Config{RAM: ramOf(64 * mib)},
			18 * mib},
		{"moved", nil, Config{RAM: []Range{{0, 30 * mib}, {41 * mib, 87 * mib}}}, 42 * mib},
		{"not movable", func(i *testImage) { i.relocatable = 0 },
			Config{RAM: []Range{{0, 30 * mib}, {41 * mib, 87 * mib}}}, 0},
		{"not movable, free", func(i *testImage) { i.relocatable = 0 }, Config{RAM: ramOf(64 * mib)},
			16 * mib},
		{"not movable, no alignment", func(i *testImage) { i.relocatable, i.alignment = 0, 0 },
			Config{RAM: ramOf(64 * mib)}, 16 * mib},
		{"file larger than init_size", func(i *testImage) { i.initSize = 1 },
			Config{RAM: ramOf(18 * mib)}, 16 * mib},
		{"file does not fit", func(i *testImage) { i.initSize = 1 }, Config{RAM: ramOf(17 * mib)}, 0},
		{"above the page tables", func(i *testImage) { i.prefAddress = 4 * gib },
			Config{RAM: ramOf(8 * gib)}, 0},
		{"up to 4 GiB", func(i *testImage) { i.prefAddress = 4*gib - 20*mib },
			Config{RAM: []Range{{0, 5 * gib}}}, 4*gib - 20*mib},
		{"setup sectors not told", func(i *testImage) { i.setupSects = 0 },
			Config{RAM: ramOf(64 * mib)}, 16 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := sampleImage()
			if c.change != nil {
				c.change(&image)
			}
			m := newGuestMemory(c.config.RAM)
			c.config.Kernel = reader(image.file())
			e, err := Load(m, c.config)
			if c.at == 0 {
				if err == nil || !strings.Contains(err.Error(), "--memory") || m.writes > 0 {
					t.Errorf("%v after %d writes, want an error about --memory before any", err, m.writes)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkEntry(t, m, e)
			if e.Kernel.Start != c.at || e.Regs.RIP != c.at+0x200 {
				t.Errorf("kernel at %#x, entry %#x, want it at %#x", e.Kernel.Start, e.Regs.RIP, c.at)
			}
			if !bytes.Equal(m.read(c.at, uint64(len(image.protected))), image.protected) {
				t.Error("the kernel in memory is not that of the file")
			}
		})
	}
}

// hole is a file of zeros, for initrds of sizes that nobody wants in memory.
type hole struct{}

func (hole) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func TestInitrdPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*testImage)
		memory uint64
		size   int64
		end    uint64 // rounded up to a page; 0: no place
	}{
		{"below the limit", nil, 3 * gib, 5000, 2 * gib},
		{"end of memory", nil, 512 * mib, 5000, 512 * mib},
		{"lower limit", func(i *testImage) { i.initrdAddrMax = 0x37ff_ffff }, 3 * gib, 5000,
			0x3800_0000},
		{"below the kernel", nil, 36 * mib, 10 * mib, 16 * mib},
		{"no room", nil, 36 * mib, 15*mib + 1, 0},
		{"all the room", nil, 36 * mib, 15 * mib, 16 * mib},
		{"above 4 GiB", nil, 8 * gib, 2 * gib, 9 * gib},
		{"above 4 GiB, kernel forbids", func(i *testImage) { i.xloadflags = xlfKernel64 }, 8 * gib,
			2 * gib, 0},
		{"more than 4 GiB", nil, 16 * gib, 5 * gib, 17 * gib},
		{"limit 0", func(i *testImage) { i.initrdAddrMax, i.xloadflags = 0, xlfKernel64 }, gib, 5000,
			0},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := sampleImage()
			if c.change != nil {
				c.change(&image)
			}
			k, err := parseKernel(reader(image.file()))
			if err != nil {
				t.Fatal(err)
			}
			m, err := newMemoryMap(ramOf(c.memory))
			if err != nil {
				t.Fatal(err)
			}
			if err := k.place(m); err != nil {
				t.Fatal(err)
			}
			r, err := placeInitrd(io.NewSectionReader(hole{}, 0, c.size), k, m)
			if c.end == 0 {
				if err == nil || !strings.Contains(err.Error(), "--memory") {
					t.Errorf("%#x, %v, want an error about --memory", r, err)
				}
				return
			}
			if err != nil || r.Size != uint64(c.size) || r.Start%pageSize != 0 ||
				alignUp(r.End(), pageSize) != c.end {
				t.Errorf("%#x bytes at %#x, want the end at %#x (%v)", r.Size, r.Start, c.end, err)
			}
			zero, err := zeroPage(k, m, r, Config{})
			if err != nil {
				t.Fatal(err)
			}
			start := uint64(le.Uint32(zero[0x218:])) | uint64(le.Uint32(zero[0xc0:]))<<32
			size := uint64(le.Uint32(zero[0x21c:])) | uint64(le.Uint32(zero[0xc4:]))<<32
			if start != r.Start || size != r.Size {
				t.Errorf("the kernel is told %#x bytes at %#x", size, start)
			}
		})
	}
}

// TestForeignFiles: what is not a kernel for these machines is told apart.
func TestForeignFiles(t *testing.T) {
	good := sampleImage().file()
	with := func(change func(*testImage)) []byte {
		i := sampleImage()
		change(&i)
		return i.file()
	}
	bytesAt := func(off int, s string) []byte {
		b := make([]byte, 4096)
		copy(b[off:], s)
		return b
	}
	put := func(off int, v ...byte) []byte {
		return with(func(i *testImage) { i.change = func(b []byte) { copy(b[off:], v) } })
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "neither a bzImage nor"},
		{"short", []byte("MZ"), "neither a bzImage nor"},
		{"text", []byte(strings.Repeat("hello ", 1000)), "neither a bzImage nor"},
		{"gzip", bytesAt(0, "\x1f\x8b\x08"), "gunzip"},
		{"zstd", bytesAt(0, "\x28\xb5\x2f\xfd"), "unzstd"},
		{"xz", bytesAt(0, "\xfd7zXZ\x00"), "unxz"},
		{"arm64", bytesAt(0x38, "ARM\x64"), "arm64 Image"},
		{"arm64 as EFI program", append([]byte("MZ"), bytesAt(0x36, "ARM\x64")...), "arm64 Image"},
		{"EFI program", bytesAt(0, "MZ"), "EFI program"},
		{"32-bit", with(func(i *testImage) { i.xloadflags = 0 }), "32-bit kernel"},
		{"old", with(func(i *testImage) { i.version = 0x020b }), "2.11: version 2.12 is needed"},
		{"zImage", put(hdrLoadFlags, 0), "zImage"},
		{"header too short", put(hdrJump+1, 0x10), "the setup header has"},
		{"header too long", put(hdrJump+1, 0xff), "the setup header has"},
		{"header cut off", good[:hdrEnd-1], "neither a bzImage nor"},
		{"no kernel in it", good[:28*sectorSize], "truncated"},
		{"cut off", good[:len(good)-16], "truncated"},
		{"syssize", put(hdrSysSize, 0xff, 0xff, 0xff, 0xff), "truncated"},
		{"alignment 0", with(func(i *testImage) { i.alignment = 0 }), "power of two"},
		{"alignment 3 MiB", with(func(i *testImage) { i.alignment = 3 * mib }), "power of two"},
		{"preferred 0", with(func(i *testImage) { i.prefAddress = 0 }), "preferred address"},
		{"preferred too high", with(func(i *testImage) { i.prefAddress = ^uint64(0) }),
			"preferred address"},
		{"init_size 4 GiB", with(func(i *testImage) { i.initSize = ^uint32(0) }), "needs 4096 MiB"},
	} {
		m := newGuestMemory(ramOf(64 * mib))
		_, err := Load(m, Config{Kernel: reader(c.file), RAM: m.ram})
		if err == nil || !strings.Contains(err.Error(), c.want) || m.writes > 0 {
			t.Errorf("%s: %v after %d writes, want %q before any", c.name, err, m.writes, c.want)
		}
	}
	if _, err := Load(nil, Config{RAM: ramOf(64 * mib)}); err == nil {
		t.Error("loaded without a kernel")
	}
}

func TestCmdline(t *testing.T) {
	image := sampleImage()
	image.cmdlineSize = 100
	small := image.file()
	for _, c := range []struct {
		cmdline string
		kernel  []byte
		ok      bool
	}{
		{strings.Repeat("x", 2047), sampleImage().file(), true},
		{strings.Repeat("x", 2048), sampleImage().file(), false},
		{strings.Repeat("x", 100), small, true},
		{strings.Repeat("x", 101), small, false},
		{"a\nb", small, false},
		{"a\x00b", small, false},
	} {
		m := newGuestMemory(ramOf(64 * mib))
		_, err := Load(m, Config{Kernel: reader(c.kernel), RAM: m.ram, Cmdline: c.cmdline})
		if (err == nil) != c.ok {
			t.Errorf("%d bytes: %v", len(c.cmdline), err)
		}
	}
}

// TestWriteFails: whichever write fails, it is the error.
func TestWriteFails(t *testing.T) {
	image := sampleImage().file()
	config := Config{Kernel: reader(image), Initrd: reader([]byte("initrd")), RAM: ramOf(64 * mib)}
	m := newGuestMemory(config.RAM)
	if _, err := Load(m, config); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= m.writes; n++ {
		failing := newGuestMemory(config.RAM)
		failing.fail = n
		if _, err := Load(failing, config); !errors.Is(err, errInjected) {
			t.Errorf("write %d of %d failed, and: %v", n, m.writes, err)
		}
	}
}

// TestFileShrinks: a kernel whose file is cut while it is loaded.
func TestFileShrinks(t *testing.T) {
	image := sampleImage().file()
	for _, n := range []int{0, 100, 1024, len(image) / 2, len(image) - 1} {
		short := io.NewSectionReader(bytes.NewReader(image[:n]), 0, int64(len(image)))
		m := newGuestMemory(ramOf(64 * mib))
		if e, err := Load(m, Config{Kernel: short, RAM: m.ram}); err == nil {
			t.Errorf("%d bytes of %d: loaded, %+v", n, len(image), e)
		}
	}
}

// TestLargeFileInPieces: memory for copying does not grow with the file.
func TestLargeFileInPieces(t *testing.T) {
	image := sampleImage()
	image.initSize = 50 * mib
	image.protected = append(image.protected, make([]byte, 30*mib)...)
	file := image.file()
	m := writesOnly{}
	if _, err := Load(&m, Config{Kernel: reader(file), RAM: ramOf(512 * mib)}); err != nil {
		t.Fatal(err)
	}
	if largest := slices.Max(m.sizes); largest > mib {
		t.Errorf("a write of %d bytes", largest)
	}
}

// writesOnly is memory that notes the size of writes.
type writesOnly struct{ sizes []int }

func (w *writesOnly) WriteAt(p []byte, _ int64) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return len(p), nil
}
