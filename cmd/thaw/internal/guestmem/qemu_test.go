package guestmem

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// streamOptions say how a test writes a migration stream.
type streamOptions struct {
	machine      string
	live         bool // every third page comes twice, the first time with other bytes
	mapped       bool // mapped-ram
	ignoreShared bool
	noRAM        bool // pages of the guest are left out
	blocks       []string
	at           int // where it begins in its file
}

// qemuWriter writes streams.
type qemuWriter struct {
	bytes.Buffer
	last string
}

func (w *qemuWriter) put(v ...any) {
	for _, x := range v {
		switch x := x.(type) {
		case string: // behind its length
			w.WriteByte(byte(len(x)))
			w.WriteString(x)
		default:
			_ = binary.Write(w, binary.BigEndian, x)
		}
	}
}

// page writes a record.
func (w *qemuWriter) page(block string, at int, page []byte) {
	flags := uint64(ramPage)
	zero := bytes.Equal(page, zeroPage)
	if zero {
		flags = ramZero
	}
	if block == w.last {
		flags |= ramContinue
	}
	w.put(uint64(at) | flags)
	if block != w.last {
		w.put(block)
	}
	if w.last = block; zero {
		w.put(uint8(0))
	} else {
		w.Write(page)
	}
}

const qemuDevices = "the state of the devices"

// vgaPage is the one page of a device's memory.
var vgaPage = bytes.Repeat([]byte("vga!"), PageSize/4)

// writeQEMU writes a stream with a machine's memory, cut into blocks of the same size.
func writeQEMU(m *machine, o streamOptions) []byte {
	if o.machine == "" {
		o.machine = "pc-i440fx-7.2"
	}
	if o.blocks == nil {
		o.blocks = []string{"pc.ram"}
	}
	part := int(m.size) / len(o.blocks)
	w := &qemuWriter{}
	w.Write(make([]byte, o.at))
	w.put([]byte("QEVM"), uint32(3), uint8(secConfig), uint32(len(o.machine)), []byte(o.machine))
	var caps []string
	if o.ignoreShared {
		caps = append(caps, "x-ignore-shared")
	}
	if o.mapped {
		caps = append(caps, "mapped-ram")
	}
	if caps != nil {
		w.put(uint8(secSubsection), "configuration/capabilities", uint32(1), uint32(len(caps)))
		for _, c := range caps {
			w.put(c)
		}
	}
	w.put(uint8(secStart), uint32(2), "ram", uint32(0), uint32(4))
	w.put(uint64(m.size+2*PageSize) | ramSizes)
	size := func(name string, n int, data []byte) {
		w.put(name, uint64(n))
		if o.ignoreShared {
			w.put(uint64(0))
		}
		if o.mapped {
			w.mapped(n, data)
		}
	}
	for i, name := range o.blocks {
		size(name, part, m.bytes[i*part:(i+1)*part])
	}
	size("vga.vram", 2*PageSize, append(bytes.Clone(vgaPage), zeroPage...))
	w.put(uint64(ramEnd), uint8(secFooter), uint32(2))
	w.put(uint8(secCommand), uint16(1), uint16(2), []byte("xx"))
	w.put(uint8(secPart), uint32(2))
	if !o.mapped {
		w.page("vga.vram", 0, vgaPage)
		for i, name := range o.blocks {
			w.block(name, m.bytes[i*part:(i+1)*part], o)
		}
		w.last = ""
	}
	w.put(uint64(ramEnd), uint8(secFooter), uint32(2), uint8(secEnd), uint32(2))
	if !o.mapped {
		w.page("vga.vram", PageSize, zeroPage)
	}
	w.put(uint64(ramEnd), uint8(secFooter), uint32(2))
	w.put(uint8(secFull), uint32(3), "devices", []byte(qemuDevices), uint8(secFooter), uint32(3))
	description := `{"page_size": 4096}`
	w.put(uint8(secEOF), uint8(secDescription), uint32(len(description)), []byte(description))
	return w.Bytes()
}

// block writes the pages of a block.
func (w *qemuWriter) block(name string, data []byte, o streamOptions) {
	for at := 0; at < len(data) && !o.noRAM; at += PageSize {
		if o.live && at/PageSize%3 == 0 {
			w.page(name, at, bytes.Repeat([]byte{byte(at / PageSize), 1}, PageSize/2))
		}
	}
	for at := 0; at < len(data) && !o.noRAM; at += PageSize {
		w.page(name, at, data[at:at+PageSize])
	}
}

// mapped writes what stands behind the name of a block with mapped-ram.
func (w *qemuWriter) mapped(n int, data []byte) {
	bits := make([]byte, (n/PageSize+63)/64*8)
	bitmap := w.Len() + 28
	pages := (bitmap + len(bits) + 1<<20 - 1) >> 20 << 20
	w.put(uint32(1), uint64(PageSize), uint64(bitmap), uint64(pages))
	body := make([]byte, pages-bitmap+n)
	for i := range n / PageSize {
		page := body[pages-bitmap+i*PageSize:][:PageSize]
		if copy(page, data[i*PageSize:(i+1)*PageSize]); !bytes.Equal(page, zeroPage) {
			bits[i/8] |= 1 << (i % 8)
		} else if i%2 == 1 {
			copy(page, "was not zero before")
		}
	}
	copy(body, bits)
	w.Write(body)
}

func TestQEMU(t *testing.T) {
	m := whole(1, 4<<20)
	for name, o := range map[string]streamOptions{
		"plain":  {},
		"live":   {live: true},
		"q35":    {machine: "pc-q35-9.1", live: true},
		"mapped": {mapped: true, machine: "pc-q35-9.1"},
		"nodes":  {blocks: []string{"ram-node0", "ram-node1"}},
		// Not all of the guest's blocks were shared.
		"ignore-shared": {ignoreShared: true, live: true},
	} {
		t.Run(name, func(t *testing.T) {
			data := writeQEMU(m, o)
			s, stream := bothWays(t, data, m.bytes)
			if (s.Reading != "") != (o.mapped || o.blocks != nil) {
				t.Errorf("for reading: %q", s.Reading)
			}
			if o.blocks == nil {
				if d := cmp.Diff([]Region{{0, 4 << 20, 0}}, s.Regions); d != "" {
					t.Error(d)
				}
			}
			if o.mapped {
				if len(s.Files) != 0 {
					t.Errorf("%v", s.Files)
				}
				return
			}
			// What is left is a stream that QEMU takes: the same, without the guest's pages.
			o.noRAM = true
			want := writeQEMU(m, o)
			for _, s := range []*Saved{s, stream} {
				if got, err := os.ReadFile(s.Files[stateFile]); err != nil || !bytes.Equal(got, want) {
					t.Errorf("state: %d bytes, want %d, %v", len(got), len(want), err)
				}
			}
		})
	}
}

// TestQEMUZeroAgain: a page that became zero while the machine was saved is zero.
func TestQEMUZeroAgain(t *testing.T) {
	m := newMachine(2, 1<<20, span{0, 0x4000})
	bothWays(t, writeQEMU(m, streamOptions{live: true}), m.bytes)
}

func TestQEMURegions(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		machine string
		size    int64
		want    []Region
	}{
		{"pc-i440fx-7.2", 3 * gib, []Region{{0, 3 * gib, 0}}},
		{"pc-i440fx-7.2", 4 * gib, []Region{{0, 3 * gib, 0}, {4 * gib, gib, 3 * gib}}},
		{"pc-q35-7.2", 2 * gib, []Region{{0, 2 * gib, 0}}},
		{"pc-q35-7.2", 3 * gib, []Region{{0, 2 * gib, 0}, {4 * gib, gib, 2 * gib}}},
		{"virt-7.2", 3 * gib, []Region{{gib, 3 * gib, 0}}},
		{"microvm", 3 * gib, nil},
	} {
		p := &qemuParser{machine: c.machine, size: c.size, blocks: []*qemuBlock{{name: "pc.ram", memory: true}}}
		if d := cmp.Diff(c.want, p.regions()); d != "" {
			t.Errorf("%+v: %s", c, d)
		}
	}
}

func TestQEMURefused(t *testing.T) {
	m := whole(3, 1<<20)
	plain := writeQEMU(m, streamOptions{})
	start := bytes.Index(plain, []byte("\x03ram"))
	sizes := start + 4 + 8
	first := bytes.LastIndex(plain, []byte("\x06pc.ram")) - 8 // the first record of a page
	named, continued := []byte("\x00\x00\x00\x08\x08vga.vram"), []byte("\x00\x00\x00\x28\x08vga.vram")
	without := streamOptions{noRAM: true, ignoreShared: true}
	be := binary.BigEndian
	header := func(off int, b []byte) func([]byte) []byte {
		return func([]byte) []byte { return mappedWith(m, off, b) }
	}
	for name, c := range map[string]struct {
		change func([]byte) []byte
		words  string
	}{
		"version":         {func(b []byte) []byte { b[7] = 2; return b }, "version 2"},
		"without RAM":     {func([]byte) []byte { return writeQEMU(m, without) }, "no memory"},
		"cut in RAM":      {func(b []byte) []byte { return b[:len(b)/2] }, "cut short"},
		"cut in devices":  {func(b []byte) []byte { return b[:len(b)-40] }, "cut short"},
		"cut at the end":  {func(b []byte) []byte { return b[:len(b)-1] }, "cut short"},
		"cut in head":     {func(b []byte) []byte { return b[:12] }, "cut short"},
		"other section":   {func(b []byte) []byte { b[start+1] = 'R'; return b }, `"Ram"`},
		"version of RAM":  {func(b []byte) []byte { b[start+11] = 5; return b }, "version 5"},
		"sum of sizes":    {func(b []byte) []byte { be.PutUint64(b[sizes:], 4096|ramSizes); return b }, "4096"},
		"huge sizes":      {func(b []byte) []byte { be.PutUint64(b[sizes:], 1<<63|ramSizes); return b }, "0x8000"},
		"huge block":      {func(b []byte) []byte { be.PutUint64(b[sizes+15:], 1<<63); return b }, "pc.ram"},
		"odd block":       {func(b []byte) []byte { be.PutUint64(b[sizes+15:], 4095); return b }, "pc.ram"},
		"empty block":     {func(b []byte) []byte { be.PutUint64(b[sizes+15:], 0); return b }, "pc.ram"},
		"beyond block":    {func(b []byte) []byte { be.PutUint64(b[first:], 1<<20|ramPage); return b }, "block"},
		"far address":     {func(b []byte) []byte { be.PutUint64(b[first:], 1<<50|ramPage); return b }, "record"},
		"unknown block":   {func(b []byte) []byte { b[first+9] = 'x'; return b }, "not listed"},
		"xbzrle":          {func(b []byte) []byte { be.PutUint64(b[first:], ramXBZRLE); return b }, "xbzrle"},
		"compressed":      {func(b []byte) []byte { be.PutUint64(b[first:], ramCompress); return b }, "compress"},
		"multifd":         {func(b []byte) []byte { be.PutUint64(b[first:], ramMultiFD); return b }, "multifd"},
		"unknown flags":   {func(b []byte) []byte { be.PutUint64(b[first:], 0x800); return b }, "0x800"},
		"no block before": {func(b []byte) []byte { return bytes.Replace(b, named, continued, 1) }, "no block"},
		"long name":       {func(b []byte) []byte { be.PutUint32(b[9:], 1<<31); return b }, "name"},
		"machine":         {func(b []byte) []byte { b[13] = 0x1b; return b }, `"\x1bc-`},
		"block":           {func(b []byte) []byte { b[sizes+9] = 0x1b; return b }, `"\x1bc.ram`},
		"unknown type":    {func(b []byte) []byte { b[8] = 0x33; return b }, "0x33"},
		"mapped, version": {header(0, be.AppendUint32(nil, 2)), "version 2"},
		"mapped, pages":   {header(20, be.AppendUint64(nil, 1)), "its pages at 1"},
		"mapped, bitmap":  {header(12, be.AppendUint64(nil, 1<<40)), "bitmap"},
		"mapped, back":    {header(12, be.AppendUint64(nil, 1)), "bitmap at 1"},
		"mapped, far":     {header(20, be.AppendUint64(nil, 1<<40)), "cut short"},
	} {
		refusedBothWays(t, name, c.change(bytes.Clone(plain)), c.words)
	}
}

// mappedWith writes a stream with mapped-ram, and other bytes in the header of its first block.
func mappedWith(m *machine, off int, b []byte) []byte {
	data := writeQEMU(m, streamOptions{mapped: true})
	copy(data[bytes.Index(data, []byte("\x06pc.ram"))+15+off:], b)
	return data
}

// TestQEMUMuchState: what is kept beside the memory is bounded.
func TestQEMUMuchState(t *testing.T) {
	m := whole(4, 1<<20)
	data := writeQEMU(m, streamOptions{})
	end := bytes.Index(data, []byte(qemuDevices))
	f, err := os.Create(writeFile(t, "huge", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, b := range [][]byte{data[:end], data[end:]} {
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(maxStreamState, 1); err != nil { // a hole
			t.Fatal(err)
		}
	}
	_, err = Open(t.Context(), f.Name(), Options{})
	refusal(t, "much state", err, "256 MiB")
}

// TestQEMUMuchConfiguration: so is what comes before the memory, also if it is one section.
func TestQEMUMuchConfiguration(t *testing.T) {
	w := &qemuWriter{}
	w.put([]byte("QEVM"), uint32(3), uint8(secConfig), uint32(0))
	head := w.Len()
	w.put(uint8(secSubsection), "configuration/capabilities", uint32(1), uint32(1000))
	for range 1000 {
		w.put(strings.Repeat("c", 255))
	}
	state, err := memFile(stateFile)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	parts := []io.Reader{bytes.NewReader(w.Bytes())}
	for range 10 {
		parts = append(parts, bytes.NewReader(w.Bytes()[head:]))
	}
	p := newQEMUParser(newStreamInput("stream", io.MultiReader(parts...)), newFeeder(t.Context(), nil), state)
	most := 0
	p.in.r = bufio.NewReader(&watched{p.in.r, func() { most = max(most, p.record.Len()) }})
	if err := p.run(); !errors.Is(err, errCut) {
		t.Error(err)
	}
	if most > w.Len() {
		t.Errorf("%d bytes of a configuration with sections of %d were in memory at once", most, w.Len())
	}
}

// watched calls a function with each read.
type watched struct {
	r    io.Reader
	seen func()
}

func (w *watched) Read(p []byte) (int, error) {
	w.seen()
	return w.r.Read(p)
}

func FuzzQEMU(f *testing.F) {
	m := newMachine(5, 0x4000, span{0x1000, 0x1000})
	for _, o := range []streamOptions{{}, {live: true}, {mapped: true}, {ignoreShared: true},
		{blocks: []string{"a", "b"}}} {
		f.Add(writeQEMU(m, o))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		agree(t, data)
		if !strings.HasPrefix(string(data), "QEVM") {
			agree(t, append([]byte("QEVM\x00\x00\x00\x03"), data...))
		}
	})
}
