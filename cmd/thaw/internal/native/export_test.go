package native

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// exportDir is what an export writes of a machine. Where holes is not set, the memory has none: so do file
// systems that tell of large holes only.
func (m *machine) exportDir(t *testing.T, holes bool) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, memoryFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for gfn := range m.memory.pages() {
		if holes && m.memory.zero(gfn) {
			continue
		}
		if _, err := f.WriteAt(m.memory.page(gfn), int64(gfn)*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(m.memory.Size()); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{stateFile: m.state, libvirtHead: m.head, "working-set": []byte("a set")}
	for name, b := range files {
		if b == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestExport: an export has the same stream as a mount, and the other files stay.
func TestExport(t *testing.T) {
	r := rand.New(rand.NewPCG(7, rand.Uint64()))
	for round := range 10 {
		m := randomMachine(r)
		c := m.checkpoint()
		dir := m.exportDir(t, round%2 == 0)
		if err := Export(dir, &c); err != nil {
			t.Fatal(err)
		}
		name := streamFile
		if m.head != nil {
			name = libvirtFile
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, m.whole()) {
			t.Fatalf("round %d: %v, or another stream", round, err)
		}
		left, err := os.ReadDir(dir)
		if err != nil || len(left) != 2 {
			t.Errorf("%d files are left, want the stream and the working set: %v, %v", len(left), left, err)
		}
	}
}

// A memory with another name is renamed; a checkpoint without names stays as it is, and so does one whose
// stream cannot be made.
func TestExportOfOthers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, memoryFile)
	if err := os.WriteFile(path, []byte("memory"), 0o600); err != nil {
		t.Fatal(err)
	}
	none := checkpointOf(`{"format":"thaw-vm-1"}`, "state")
	if err := Export(dir, &none); !errors.Is(err, ErrNoNames) {
		t.Errorf("without names: %v", err)
	}
	fc := checkpointOf(imported("firecracker", "firecracker", ""), "vmstate")
	if err := Export(dir, &fc); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "mem")); err != nil || string(got) != "memory" {
		t.Errorf("mem: %q, %v", got, err)
	}

	m := randomMachine(rand.New(rand.NewPCG(8, 1)))
	c := m.checkpoint()
	m.state = m.state[:m.at/2]
	dir = m.exportDir(t, true)
	if err := Export(dir, &c); err == nil {
		t.Error("a state that was cut is exported")
	}
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err != nil {
		t.Error(err)
	}
}
