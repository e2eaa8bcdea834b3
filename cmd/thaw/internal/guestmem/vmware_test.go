package guestmem

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeVMwareState writes a state file with the regions of a memory.
func writeVMwareState(magic uint32, regions ...Region) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, magic), 8), 2)
	for i, name := range []string{"cpu", "memory"} {
		field := make([]byte, 64)
		copy(field, name)
		b = le.AppendUint64(le.AppendUint64(append(b, field...), uint64(12+2*80+2*i)), 0)
	}
	b = append(b, 0, 0) // the group cpu
	tag := func(name string, value uint64, indices ...uint32) {
		b = append(append(b, byte(len(indices)<<6|4), byte(len(name))), name...)
		for _, i := range indices {
			b = le.AppendUint32(b, i)
		}
		b = le.AppendUint32(b, uint32(value))
	}
	long := []byte("a long one")
	b = append(append(b, 63, 4), "Long"...)
	if magic&0xf == 0 {
		b = le.AppendUint32(le.AppendUint32(b, uint32(len(long))), uint32(len(long)))
	} else {
		b = le.AppendUint64(le.AppendUint64(b, uint64(len(long))), uint64(len(long)))
	}
	b = append(append(b, 0, 0), long...)
	tag("regionsCount", uint64(len(regions)))
	for i, r := range regions {
		tag("regionPPN", r.GPA/PageSize, uint32(i))
		tag("regionPageNum", r.Offset/PageSize, uint32(i))
		tag("regionSize", r.Bytes/PageSize, uint32(i))
	}
	tag("two", 1, 7, 8)
	return append(b, 0, 0)
}

// writeVMware writes a pair of files, and returns their paths without the extension.
func writeVMware(t testing.TB, ext string, state, memory []byte) string {
	t.Helper()
	stem := filepath.Join(t.TempDir(), "a [machine]")
	writeAt(t, stem+ext, state)
	if memory != nil {
		writeAt(t, stem+".vmem", memory)
	}
	return stem
}

func TestVMware(t *testing.T) {
	m := whole(1, 2<<20)
	want := []Region{{0, 1 << 20, 0}, {4 << 30, 1 << 20, 1 << 20}}
	for _, magic := range []uint32{0xbed2bed0, 0xbad1bad1, 0xbed2bed2, 0xbed3bed3} {
		state := writeVMwareState(magic, want[1], want[0])
		stem := writeVMware(t, ".vmss", state, m.bytes)
		for _, path := range []string{stem + ".vmem", stem + ".vmss", filepath.Dir(stem)} {
			s := mustOpen(t, path, Options{})
			got, err := contents(s.Memory)
			sameImage(t, path, got, err, m.bytes)
			if d := cmp.Diff(want, s.Regions); d != "" {
				t.Error(d)
			}
			if b, err := os.ReadFile(s.Files["vmss"]); err != nil || !bytes.Equal(b, state) {
				t.Errorf("%v: %v", s.Files, err)
			}
		}
	}
	stem := writeVMware(t, ".vmsn", writeVMwareState(0xbed2bed2), m.bytes)
	if s := mustOpen(t, stem+".vmem", Options{}); s.Regions != nil || s.Files["vmsn"] == "" {
		t.Errorf("one region: %+v", s)
	}
	// Without a state file it is a bare memory.
	if s, err := Open(t.Context(), writeFile(t, "x.vmem", m.bytes), Options{}); s != nil || err != nil {
		t.Errorf("alone: %v, %v", s, err)
	}
}

func TestVMwareRefused(t *testing.T) {
	m := whole(2, 2<<20).bytes
	one := Region{0, 2 << 20, 0}
	good := writeVMwareState(0xbed2bed2, one)
	change := func(at int, b ...byte) []byte {
		state := bytes.Clone(good)
		copy(state[at:], b)
		return state
	}
	for name, c := range map[string]struct {
		state, memory []byte
		words         string
	}{
		"no memory":   {good, nil, "another file"},
		"cut memory":  {good, m[:1<<20], "cut short"},
		"odd memory":  {good, append(bytes.Clone(m), 1), "2097153"},
		"cut state":   {good[:len(good)-20], m, "cut short"},
		"cut groups":  {good[:100], m, "cut short"},
		"many groups": {change(8, 0xff, 0xff, 0xff, 0xff), m, "groups"},
		"no group":    {change(12+80, 'M'), m, "group of the memory"},
		"far group":   {change(12+80+64+5, 1), m, "group of the memory"},
		"huge tag":    {change(12+160+2+2+4+6, 1), m, "Long"},
		"overlap":     {writeVMwareState(0xbed2bed2, one, one), m, "overlap"},
		"no region":   {bytes.Replace(good, []byte("regionSize"), []byte("regionsize"), 1), m, "not described"},
		"no magic":    {change(0, 1), m, "magic"},
	} {
		stem := writeVMware(t, ".vmss", c.state, c.memory)
		path := stem + ".vmem"
		if c.memory == nil {
			path = stem + ".vmss"
		}
		s, err := Open(t.Context(), path, Options{})
		if s != nil {
			t.Errorf("%s was opened", name)
		}
		refusal(t, name, err, c.words)
	}
	many := writeVMwareState(0xbed2bed2, make([]Region, maxVMwareRegions+1)...)
	_, err := Open(t.Context(), writeVMware(t, ".vmss", many, m)+".vmem", Options{})
	refusal(t, "many regions", err, "4097")
	_, err = OpenStream("stream", strings.NewReader(string(good)), false)
	refusal(t, "a stream", err, "VMware")
}

func FuzzVMware(f *testing.F) {
	f.Add(writeVMwareState(0xbed2bed2, Region{0, 1 << 20, 0}, Region{4 << 30, 1 << 20, 1 << 20}))
	f.Add(writeVMwareState(0xbed2bed0))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := memFile("fuzzed")
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if _, err := m.Write(b); err != nil {
			t.Fatal(err)
		}
		state, err := openFile(m.Name())
		if err != nil {
			t.Fatal(err)
		}
		defer state.Close()
		tags, err := readVMwareTags(t.Context(), state)
		if err != nil {
			return
		}
		list, err := tags.regions(2 << 20)
		for i, r := range list {
			if err == nil && (r.Offset+r.Bytes > 2<<20 || i > 0 && r.GPA < list[i-1].GPA+list[i-1].Bytes) {
				t.Errorf("%+v", list)
			}
		}
	})
}
