package guestmem

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeCH writes a snapshot of Cloud Hypervisor.
func writeCH(t testing.TB, memory []byte, ranges ...Region) string {
	t.Helper()
	dir := t.TempDir()
	writeAt(t, filepath.Join(dir, chMemory), memory)
	writeAt(t, filepath.Join(dir, chConfig), []byte(`{"cpus":{"boot_vcpus":1}}`))
	writeAt(t, filepath.Join(dir, chState), chStateText(ranges...))
	return dir
}

func chStateText(ranges ...Region) []byte {
	type object = map[string]any
	data := []object{}
	for _, r := range ranges {
		data = append(data, object{"gpa": r.GPA, "length": r.Bytes})
	}
	inner, _ := json.Marshal(object{"memory_ranges": object{"data": data}, "hotplug_slots": []int{}})
	text, _ := json.Marshal(object{"snapshot_data": nil, "snapshots": object{
		"cpu-manager":    object{"snapshots": object{"0": object{}}},
		"memory-manager": object{"snapshots": object{}, "snapshot_data": object{"state": string(inner)}},
	}})
	return text
}

func TestCloudHypervisor(t *testing.T) {
	m := whole(1, 3<<20)
	want := []Region{{0, 1 << 20, 0}, {4 << 30, 1 << 20, 1 << 20}, {2 << 20, 1 << 20, 2 << 20}}
	s := mustOpen(t, writeCH(t, m.bytes, want...), Options{})
	got, err := contents(s.Memory)
	sameImage(t, "memory", got, err, m.bytes)
	if d := cmp.Diff(want, s.Regions); d != "" || s.Reading != "" || s.Format != "cloud-hypervisor" {
		t.Errorf("%s%+v", d, s)
	}
	if len(s.Files) != 2 || filepath.Base(s.Files[chConfig]) != chConfig ||
		filepath.Base(s.Files[chState]) != chState {
		t.Errorf("%v", s.Files)
	}
	dir := writeCH(t, m.bytes, Region{0, 3 << 20, 0})
	writeAt(t, filepath.Join(dir, setFile), []byte("a set"))
	if err := os.Remove(filepath.Join(dir, chConfig)); err != nil {
		t.Fatal(err)
	}
	if s := mustOpen(t, dir, Options{}); !strings.Contains(s.Reading, chConfig) || s.Files[setFile] == "" {
		t.Errorf("without a config: %+v", s)
	}
}

func TestCloudHypervisorRefused(t *testing.T) {
	m := whole(2, 2<<20).bytes
	one := Region{0, 2 << 20, 0}
	other := `{"snapshots":{"memory-manager":{"snapshot_data":{"state":[1,2]}}}}`
	for name, c := range map[string]struct {
		dir   string
		text  string // of state.json, if not empty
		words string
	}{
		"cut":           {dir: writeCH(t, m[:1<<20], one), words: "cut short"},
		"longer":        {dir: writeCH(t, m, Region{0, 1 << 20, 0}), words: "1048576"},
		"odd":           {dir: writeCH(t, m, Region{0, 2<<20 - 1, 0}), words: "range 0"},
		"overlap":       {dir: writeCH(t, m, Region{0, 1 << 20, 0}, Region{0x80000, 1 << 20, 0}), words: "overlap"},
		"too large":     {dir: writeCH(t, m, Region{0, MaxSize * 2, 0}), words: "range 0"},
		"wraps around":  {dir: writeCH(t, m, one, Region{0, 1 << 63, 0}, Region{0, 1 << 63, 0}), words: "range 1"},
		"no ranges":     {dir: writeCH(t, m), words: "no memory"},
		"not JSON":      {dir: writeCH(t, m), text: "{", words: "state.json"},
		"no manager":    {dir: writeCH(t, m), text: "{}", words: "memory manager"},
		"other manager": {dir: writeCH(t, m), text: other, words: "memory manager"},
		"no state":      {dir: writeCH(t, m), text: `{"snapshots":{"memory-manager":{}}}`, words: "memory manager"},
	} {
		if c.text != "" {
			writeAt(t, filepath.Join(c.dir, chState), []byte(c.text))
		}
		s, err := Open(t.Context(), c.dir, Options{})
		if s != nil {
			t.Errorf("%s was opened", name)
		}
		refusal(t, name, err, c.words)
	}
}

func FuzzCloudHypervisor(f *testing.F) {
	f.Add(chStateText(Region{0, 1 << 20, 0}, Region{4 << 30, 1 << 20, 0}))
	f.Add(chStateText())
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := readRanges(text)
		off := uint64(0)
		for _, r := range list {
			if r.Offset != off || r.Bytes == 0 || (r.GPA|r.Bytes)%PageSize != 0 {
				t.Errorf("%+v", list)
			}
			off += r.Bytes
		}
		if err == nil && (off == 0 || off > MaxSize) {
			t.Errorf("%d bytes", off)
		}
	})
}
