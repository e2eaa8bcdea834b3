package fleet

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// root is a directory with files on each host that has Go.
func root(t *testing.T) string {
	t.Helper()
	dir, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip(err)
	}
	return filepath.Join(strings.TrimSpace(string(dir)), "src")
}

func write(t *testing.T, m *Machine) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "memory")
	if err := m.Write(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shared counts the pages of b that are somewhere in a, the zero ones left out of both; and those that lie
// at the same place.
func shared(a, b []byte) (data, anywhere, inPlace int) {
	zero := string(make([]byte, PageSize))
	in := map[string]bool{}
	for i := 0; i < len(a); i += PageSize {
		in[string(a[i:i+PageSize])] = true
	}
	for i := 0; i < len(b); i += PageSize {
		p := b[i : i+PageSize]
		if string(p) == zero {
			continue
		}
		data++
		if in[string(p)] {
			anywhere++
		}
		if bytes.Equal(p, a[i:i+PageSize]) {
			inPlace++
		}
	}
	return data, anywhere, inPlace
}

// TestFleet: the same spec gives the same bytes; machines share page cache, at other places; a state has
// most of the one before it; it compresses as memory does.
func TestFleet(t *testing.T) {
	spec := Spec{Bytes: 32 << 20, Seed: 3, Root: root(t)}
	f, err := New(spec)
	if err != nil {
		t.Skip(err)
	}
	first, other := f.Machine(0), write(t, f.Machine(1))
	before := write(t, first)
	first.Advance()
	after := write(t, first)

	g, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	again := g.Machine(0)
	again.Advance()
	if !bytes.Equal(write(t, again), after) {
		t.Error("the same machine in the same state has other bytes")
	}

	data, anywhere, inPlace := shared(before, other)
	t.Logf("two machines: of %d pages %d are in the other one, %d at the same place", data, anywhere, inPlace)
	if share := float64(data) * PageSize / float64(len(other)); share < 0.5 || share > 0.95 {
		t.Errorf("%.0f %% of a machine is not zero", share*100)
	}
	if anywhere*10 < data*2 || anywhere*10 > data*7 || inPlace*3 > data {
		t.Error("want 20 to 70 % of the pages shared, at other places")
	}
	data, anywhere, inPlace = shared(before, after)
	t.Logf("two states: of %d pages %d are in the one before, %d at the same place", data, anywhere, inPlace)
	if inPlace*10 < data*7 || anywhere == data {
		t.Error("want most pages of a state where they were in the one before, and not all")
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	size, stored := data*PageSize, 0
	for i := 0; i < len(after); i += PageSize {
		stored += len(z.EncodeAll(after[i:i+PageSize], nil))
	}
	if ratio := float64(size) / float64(stored); ratio < 2 || ratio > 5 {
		t.Errorf("page by page it compresses %.1f:1, want about 3:1", ratio)
	}
}

// TestTooFewFiles: a directory that cannot fill a machine is refused, and so is none.
func TestTooFewFiles(t *testing.T) {
	if _, err := New(Spec{Bytes: 1 << 20, Root: t.TempDir()}); err == nil {
		t.Error("an empty directory was enough")
	}
	if _, err := New(Spec{Bytes: 1 << 20, Root: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a missing directory was enough")
	}
}
