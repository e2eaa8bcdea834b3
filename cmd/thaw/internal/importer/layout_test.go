package importer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/wss"
)

// TestLayoutOfSets: a trace is believed before a read trace, and that before access bits; what two
// vCPUs touched are two groups.
func TestLayoutOfSets(t *testing.T) {
	set := &wss.Set{ImagePages: 100, Runs: []wss.Run{
		{GFN: 50, Count: 10, Source: wss.SourceAccess, VCPU: wss.NoVCPU},
		{GFN: 7, Count: 2, Source: wss.SourceTrace, VCPU: 1},
		{GFN: 30, Count: 1, Source: wss.SourceTrace, VCPU: 0},
		{GFN: 52, Count: 2, Source: wss.SourceRead, VCPU: wss.NoVCPU},
		{GFN: 9, Count: 1, Source: wss.SourceTrace, VCPU: 1},
		{GFN: 8, Count: 3, Source: "later", VCPU: wss.NoVCPU},
	}}
	if err := set.Validate(100); err != nil {
		t.Fatal(err)
	}
	want := []index.Run{{GFN: 7, Count: 2}, {GFN: 30, Count: 1}, {GFN: 9, Count: 1},
		{GFN: 52, Count: 2}, {GFN: 8, Count: 3}, {GFN: 50, Count: 10}}
	if d := cmp.Diff(want, Runs(set)); d != "" {
		t.Error(d)
	}
	// A bound of ten pages: those that are named twice count once.
	want = append(want[:5:5], index.Run{GFN: 50, Count: 5})
	hot, warning := within(set, wss.Policy{MaxShare: 0.1, Floor: -1})
	if d := cmp.Diff(want, hot); d != "" || warning == "" {
		t.Error(d, warning)
	}
	used := func(runs ...index.Run) index.Group {
		return index.Group{Kind: index.GroupUsed, Runs: runs}
	}
	groups := []index.Group{
		used(index.Run{GFN: 7, Count: 2}, index.Run{GFN: 9, Count: 1}),
		used(index.Run{GFN: 30, Count: 1}), used(index.Run{GFN: 52, Count: 2}),
		used(index.Run{GFN: 8, Count: 3}), used(index.Run{GFN: 50, Count: 10}),
	}
	if d := cmp.Diff(groups, usedGroups(set)); d != "" {
		t.Error(d)
	}
}

// guestRAM is an image in RAM.
type guestRAM []byte

func (m guestRAM) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}
func (m guestRAM) Size() int64 { return int64(len(m)) }
func (m guestRAM) Extents() ([]index.Run, error) {
	return []index.Run{{GFN: 0, Count: uint64(len(m)) / index.PageSize}}, nil
}

// TestLayoutByPageTables: a VMM's word of where the tables are is taken, and a wrong one is no
// error.
func TestLayoutByPageTables(t *testing.T) {
	m := make(guestRAM, 64*index.PageSize)
	entry := func(frame, i, to uint64) {
		binary.LittleEndian.PutUint64(m[frame*index.PageSize+i*8:], to<<12|0x67)
	}
	entry(10, 0, 11)
	entry(11, 0, 12)
	entry(12, 0, 13)
	for i, frame := range []uint64{40, 20, 33} {
		entry(13, uint64(i), frame)
	}
	want := []index.Group{{Kind: index.GroupVirtual, Runs: []index.Run{
		{GFN: 11, Count: 3}, {GFN: 40, Count: 1}, {GFN: 20, Count: 1}, {GFN: 33, Count: 1}}}}
	for name, c := range map[string]struct {
		info string
		want []index.Group
	}{
		"told":         {`{"paging": {"levels": 4, "roots": [40960], "complete": true}}`, want},
		"told in part": {`{"paging": {"levels": 4, "roots": [40960]}}`, want},
		"not told":     {`{"vmm": "x"}`, nil},
		"nonsense":     {`{"paging": "on"}`, nil},
		"out of range": {`{"paging": {"levels": 4, "roots": [1099511627776]}}`, nil},
		"no such image": {`{"paging": {"levels": 4, "roots": [40960],
			"regions": [{"gpa": 0, "bytes": 1099511627776, "offset": 0}]}}`, nil},
	} {
		log := slog.New(slog.DiscardHandler)
		src := index.Source{Memory: "ram", Image: m, Info: []byte(c.info)}
		got, st, err := layoutOf(t.Context(), src, nil, true, log)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, got); d != "" || st.AddressSpaces != len(c.want) {
			t.Errorf("%s: %+v %s", name, st, d)
		}
		if got, _, err := layoutOf(t.Context(), src, nil, false, log); err != nil || got != nil {
			t.Errorf("%s: by number: %v, %v", name, got, err)
		}
	}
}

// TestLayoutOfCheckpoint: what the VMM writes down of the page tables of its guest is what the
// layout reads, and its pages lie in virtual order, tables before what they map. Nobody could find
// these tables in the image: the guest has no kernel.
func TestLayoutOfCheckpoint(t *testing.T) {
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		t.Skip(err)
	} else {
		f.Close()
	}
	const memory = 16 << 20
	log := slog.New(slog.DiscardHandler)
	m, err := vmm.New(vmm.Config{Guest: guest.Spec{Program: "idle"}, MemoryBytes: memory, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "checkpoint")
	_, err = m.Checkpoint(t.Context(), dir)
	if err := errors.Join(err, m.Close()); err != nil {
		t.Fatal(err)
	}
	src, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	// All is mapped to itself, but page 0. The root is page 256.
	want := []index.Group{{Kind: index.GroupVirtual, Runs: []index.Run{
		{GFN: 257, Count: 3}, {GFN: 1, Count: 256}, {GFN: 260, Count: memory/index.PageSize - 260}}}}
	got, st, err := layoutOf(t.Context(), src.Source, nil, true, log)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" || st.Roots != 1 {
		t.Errorf("%+v %s", st, d)
	}
	src.Info = []byte(`{"format": "thaw-vm-1"}`) // an old checkpoint's
	got, _, err = layoutOf(t.Context(), src.Source, nil, true, log)
	if err != nil || cmp.Equal(want, got) {
		t.Errorf("not told: %v, %v", got, err)
	}
}
