package native

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/thawfs/thaw/cmd/thaw/internal/guestmem"
	"github.com/thawfs/thaw/index"
)

// plain is a memory in RAM.
type plain struct {
	b    []byte
	data []bool // which pages are not zero
	bad  uint64 // a page that cannot be read; 0: none
}

var errBad = errors.New("injected failure")

func (m plain) pages() uint64        { return uint64(len(m.b)) / pageSize }
func (m plain) page(n uint64) []byte { return m.b[n*pageSize : (n+1)*pageSize] }
func (m plain) zero(n uint64) bool   { return !m.data[n] }
func (m plain) Size() int64          { return int64(len(m.b)) }

func (m plain) NextZero(gfn uint64) uint64 {
	for gfn < m.pages() && !m.zero(gfn) {
		gfn++
	}
	return min(gfn, m.pages())
}

func (m plain) DataBefore(gfn uint64) (n uint64) {
	for i := range min(gfn, m.pages()) {
		if !m.zero(i) {
			n++
		}
	}
	return n
}

func (m plain) ReadRange(first uint64, dst []byte) error {
	if n := uint64(len(dst)) / pageSize; m.bad != 0 && m.bad >= first && m.bad < first+n {
		return errBad
	}
	copy(dst, m.b[first*pageSize:])
	return nil
}

// randomMemory has runs of pages that are zero, and runs that are not.
func randomMemory(r *rand.Rand, pages int) plain {
	m := plain{b: make([]byte, pages*pageSize), data: make([]bool, pages)}
	for at := 0; at < pages; {
		n := min(1+r.IntN(1<<r.IntN(6)), pages-at)
		if r.IntN(2) == 0 {
			for i := at; i < at+n; i++ {
				m.b[i*pageSize+r.IntN(pageSize)], m.data[i] = byte(1+r.IntN(255)), true
			}
		}
		at += n
	}
	return m
}

// A machine is a saved machine of QEMU.
type machine struct {
	memory plain
	blocks []guestmem.QEMUBlock
	head   []byte // libvirt's; nil: none
	state  []byte
	at     int // where pages are put into the state
}

func be(v ...any) (b []byte) {
	for _, x := range v {
		switch x := x.(type) {
		case string: // behind its length
			b = append(append(b, byte(len(x))), x...)
		case []byte:
			b = append(b, x...)
		default:
			b, _ = binary.Append(b, binary.BigEndian, x) // a number
		}
	}
	return b
}

func randomMachine(r *rand.Rand) *machine {
	m := &machine{}
	left := 1 + r.IntN(1200)
	m.memory = randomMemory(r, left)
	for base := 0; left > 0; {
		n := left
		if r.IntN(2) == 0 && len(m.blocks) < 3 {
			n = 1 + r.IntN(left)
		}
		m.blocks = append(m.blocks, guestmem.QEMUBlock{
			Name: fmt.Sprintf("ram%d", len(m.blocks)*r.IntN(9999)+len(m.blocks)),
			Base: int64(base) * pageSize, Size: int64(n) * pageSize})
		base, left = base+n, left-n
	}
	const machineName = "pc-i440fx-7.2"
	s := be([]byte("QEVM"), uint32(3), uint8(7), uint32(len(machineName)), []byte(machineName))
	s = append(s, be(uint8(1), uint32(2), "ram", uint32(0), uint32(4), uint64(m.memory.Size()+2*pageSize)|4)...)
	for i, b := range m.blocks {
		if i == len(m.blocks)/2 {
			s = append(s, be("vga.vram", uint64(2*pageSize))...)
		}
		s = append(s, be(b.Name, uint64(b.Size))...)
	}
	m.at = len(s)
	vga := bytes.Repeat([]byte("vga!"), pageSize/4)
	s = append(s, be(uint64(16), uint8(126), uint32(2), uint8(2), uint32(2), uint64(8), "vga.vram", vga)...)
	s = append(s, be(uint64(16), uint8(126), uint32(2), uint8(3), uint32(2))...)
	s = append(s, be(uint64(pageSize|2|32), uint8(0), uint64(16), uint8(126), uint32(2))...)
	s = append(s, be(uint8(4), uint32(3), "devices", bytes.Repeat([]byte("device"), r.IntN(3000)))...)
	description := `{"page_size": 4096}`
	s = append(s, be(uint8(126), uint32(3), uint8(0), uint8(6), uint32(len(description)))...)
	m.state = append(s, description...)
	if r.IntN(2) == 0 {
		m.head = libvirtHeader(r)
	}
	return m
}

func libvirtHeader(r *rand.Rand) []byte {
	h := make([]byte, 92)
	copy(h, "LibvirtQemudSave")
	xml := append([]byte("<domain/>\x00"), make([]byte, r.IntN(5000))...)
	for i, n := range []int{2, len(xml), 1, r.IntN(6)} {
		binary.LittleEndian.PutUint32(h[16+4*i:], uint32(n))
	}
	return append(h, xml...)
}

// whole is the file, written as the format says.
func (m *machine) whole() []byte {
	b := bytes.Clone(m.head)
	if b != nil {
		copy(b[28:32], make([]byte, 4))
	}
	b = append(b, m.state[:m.at]...)
	for _, block := range m.blocks {
		for at := int64(0); at < block.Size; at += pageSize {
			gfn := uint64(block.Base+at) / pageSize
			flags, name := uint64(8), be(block.Name)
			if at > 0 {
				flags, name = flags|32, nil
			}
			if content := m.memory.page(gfn); m.memory.zero(gfn) {
				b = append(b, be(uint64(at)|flags^8|2, name, uint8(0))...)
			} else {
				b = append(b, be(uint64(at)|flags, name, content)...)
			}
		}
	}
	return append(b, m.state[m.at:]...)
}

// checkpoint is what a store lists of the machine.
func (m *machine) checkpoint() index.Checkpoint {
	data := m.memory.DataBefore(m.memory.pages())
	var names []string
	for _, b := range m.blocks {
		names = append(names, b.Name)
	}
	format := "qemu"
	files := map[string]int64{stateFile: int64(len(m.state))}
	if m.head != nil {
		format, files[libvirtHead] = "libvirt", int64(len(m.head))
	}
	guest, err := json.Marshal(map[string]any{"vmm": "qemu", "imported": map[string]any{
		"format": format, "ram_blocks": names, "restorable": len(names) == 1}})
	if err != nil {
		panic(err)
	}
	return index.Checkpoint{Name: "m", MemoryBytes: m.memory.Size(), DataPages: data,
		ZeroPages: m.memory.pages() - data, Files: files, Guest: guest}
}

type storedFile struct {
	*bytes.Reader
	open *int
}

func (f storedFile) Close() error { *f.open--; return nil }

// compose opens the composed file, and returns how many stored files are open.
func (m *machine) compose() (*composed, *int, error) {
	c := m.checkpoint()
	open := new(int)
	f, err := streamOf(&c).compose(m.memory, func(name string) (File, error) {
		*open++
		if name == stateFile {
			return storedFile{bytes.NewReader(m.state), open}, nil
		}
		return storedFile{bytes.NewReader(m.head), open}, nil
	})
	return f, open, err
}

// TestStream: the composed file is what the format says, any part of it, and an import finds the machine in
// it that it was composed of.
func TestStream(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	for range rounds {
		m := randomMachine(r)
		want := m.whole()
		f, open, err := m.compose()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if f.size != int64(len(want)) {
			t.Fatalf("seed %d: %d bytes, want %d", seed, f.size, len(want))
		}
		for range 40 {
			off := r.IntN(len(want) + 1)
			p := make([]byte, r.IntN(1<<r.IntN(19)))
			n, err := f.ReadAt(p, int64(off))
			rest := want[off:min(off+len(p), len(want))]
			if !bytes.Equal(p[:n], rest) || (err == io.EOF) != (n < len(p)) || err != nil && err != io.EOF {
				t.Fatalf("seed %d: %d bytes at %d: %d, %v, or other bytes", seed, len(p), off, n, err)
			}
		}
		all := make([]byte, len(want))
		if _, err := f.ReadAt(all, 0); err != nil || !bytes.Equal(all, want) {
			t.Fatalf("seed %d: the whole: %v, or other bytes", seed, err)
		}
		if m.memory.DataBefore(m.memory.pages()) > 0 {
			m.imported(t, all)
		}
		if err := f.Close(); err != nil || *open != 0 {
			t.Fatalf("%v; %d files are open", err, *open)
		}
	}
}

// imported compares what an import finds in a file.
func (m *machine) imported(t *testing.T, file []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	saved, err := guestmem.Open(t.Context(), path, guestmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	got := make([]byte, saved.Memory.Size())
	if _, err := saved.Memory.ReadAt(got, 0); err != nil && err != io.EOF || !bytes.Equal(got, m.memory.b) {
		t.Fatalf("the memory is another one: %v", err)
	}
	state, err := os.ReadFile(saved.Files[stateFile])
	if err != nil || !bytes.Equal(state, m.state) {
		t.Fatalf("the state is another one: %v", err)
	}
}

// A page that cannot be read is an error of those who read it, and of no others.
func TestStreamOfBadPage(t *testing.T) {
	m := &machine{}
	r := rand.New(rand.NewPCG(1, 1))
	for m.memory.pages() < 100 || m.memory.zero(50) {
		m = randomMachine(r)
	}
	m.memory.bad = 50
	f, _, err := m.compose()
	if err != nil {
		t.Fatal(err)
	}
	whole := m.whole()
	at := bytes.Index(whole, m.memory.page(50))
	p := make([]byte, 100)
	for _, off := range []int{at, at + pageSize - 1, at - 99} {
		if _, err := f.ReadAt(p, int64(off)); !errors.Is(err, errBad) {
			t.Errorf("at %d: %v", off-at, err)
		}
	}
	if n, err := f.ReadAt(p, int64(at+pageSize)); err != nil || !bytes.Equal(p, whole[at+pageSize:][:n]) {
		t.Errorf("behind it: %v, or other bytes", err)
	}
	last := f.size - int64(len(p))
	if _, err := f.ReadAt(p, last); err != nil || !bytes.Equal(p, whole[last:]) {
		t.Errorf("the end: %v, or other bytes", err)
	}
}

// What does not fit together is an error of the open, and nothing stays open.
func TestStreamThatLies(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	for what, change := range map[string]func(*machine){
		"a state that is cut":     func(m *machine) { m.state = m.state[:m.at/2] },
		"a state of another kind": func(m *machine) { m.state = []byte("thawvm\r\n, and more of it") },
		"another memory": func(m *machine) {
			m.memory.b, m.memory.data = append(m.memory.b, make([]byte, pageSize)...), append(m.memory.data, false)
		},
		"another name": func(m *machine) { m.blocks[0].Name += "2" },
		"a size that is too large": func(m *machine) {
			i := bytes.Index(m.state, []byte(m.blocks[0].Name)) + len(m.blocks[0].Name)
			m.state[i] = 0x10
		},
	} {
		m := randomMachine(r)
		change(m)
		if _, open, err := m.compose(); err == nil || *open != 0 {
			t.Errorf("%s: %v; %d files are open", what, err, *open)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
}
