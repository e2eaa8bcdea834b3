package guestmem

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
)

// A snapshot of Cloud Hypervisor is a directory with config.json, state.json and memory-ranges. The last
// has the ranges of the table "memory_ranges" one behind the other, without a header. The table is in
// state.json:
//
//	{"snapshots": {"memory-manager": {"snapshot_data": {"state": "<JSON>"}}, ...}}
//
// where the inner JSON is text. Memory of a zone that is a file of its own is not in the table nor in the
// file.

const (
	chConfig   = "config.json"
	chState    = "state.json"
	chMemory   = "memory-ranges"
	aCloudHyp  = "a snapshot of Cloud Hypervisor"
	chMaxState = 256 << 20
	// chMaxDepth bounds how deep snapshots are nested.
	chMaxDepth = 8
)

// chSnapshot is a node of state.json.
type chSnapshot struct {
	Snapshots map[string]chSnapshot `json:"snapshots"`
	Data      struct {
		State json.RawMessage `json:"state"`
	} `json:"snapshot_data"`
}

// chRanges is the table of ranges.
type chRanges struct {
	Ranges struct {
		Data []struct {
			GPA    uint64 `json:"gpa"`
			Length uint64 `json:"length"`
		} `json:"data"`
	} `json:"memory_ranges"`
}

// find looks for the snapshot with an ID.
func (s chSnapshot) find(id string, depth int) *chSnapshot {
	if depth > chMaxDepth {
		return nil
	}
	for name, sub := range s.Snapshots {
		if name == id {
			return &sub
		}
		if found := sub.find(id, depth+1); found != nil {
			return found
		}
	}
	return nil
}

// readRanges reads the table of ranges as regions of the file.
func readRanges(text []byte) (list []Region, err error) {
	var all chSnapshot
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	manager := all.find("memory-manager", 0)
	if manager == nil {
		return nil, errors.New("it has no snapshot of the memory manager")
	}
	inner := []byte(manager.Data.State)
	var quoted string
	if json.Unmarshal(inner, &quoted) == nil {
		inner = []byte(quoted)
	}
	var table chRanges
	if err := json.Unmarshal(inner, &table); err != nil {
		return nil, fmt.Errorf("the state of the memory manager: %w", err)
	}
	off := uint64(0)
	for i, r := range table.Ranges.Data {
		if r.Length == 0 || (r.GPA|r.Length)%PageSize != 0 || r.Length > MaxSize || r.GPA > math.MaxInt64/2 ||
			off+r.Length > MaxSize {
			return nil, fmt.Errorf("range %d of the memory has %d bytes at %#x", i, r.Length, r.GPA)
		}
		for _, x := range list {
			if r.GPA < x.GPA+x.Bytes && x.GPA < r.GPA+r.Length {
				return nil, fmt.Errorf("%w: at %#x and %#x", errOverlap, x.GPA, r.GPA)
			}
		}
		if len(list) >= 1<<16 {
			return nil, errors.New("its memory has more than 65,536 ranges")
		}
		list = append(list, Region{r.GPA, r.Length, off})
		off += r.Length
	}
	if len(list) == 0 {
		return nil, errNothing
	}
	return list, nil
}

// isCloudHypervisor says whether a directory is a snapshot, by the names of its files.
func isCloudHypervisor(dir string) bool {
	for _, name := range []string{chState, chMemory} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || !st.Mode().IsRegular() {
			return false
		}
	}
	return true
}

func openCloudHypervisor(dir string) (*Saved, error) {
	path := filepath.Join(dir, chState)
	bad := &FormatError{Path: path, Format: "the state of " + aCloudHyp}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > chMaxState {
		bad.Why = fmt.Sprintf("it has %d bytes", st.Size())
		return nil, bad
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	list, err := readRanges(text)
	if err != nil {
		bad.Why, bad.Err = "where its memory lies cannot be read", err
		return nil, bad
	}
	f, err := openFile(filepath.Join(dir, chMemory))
	if err != nil {
		return nil, err
	}
	want := int64(list[len(list)-1].Offset + list[len(list)-1].Bytes)
	if f.size != want {
		_ = f.Close()
		return nil, &FormatError{Path: f.path, Format: "the memory of " + aCloudHyp, Why: fmt.Sprintf(
			"it has %d bytes, and state.json says %d: it was cut short or belongs to another machine", f.size, want)}
	}
	m, err := newPieces(f, []piece{{0, 0, f.size}}, f.size)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &Saved{Format: "cloud-hypervisor", VMM: "cloud-hypervisor", Path: f.path, Memory: m, Regions: list,
		Saw:   aCloudHyp + " with " + counted(len(list), "range") + " of memory",
		Files: map[string]string{chState: path}}
	s.keep(f)
	config := filepath.Join(dir, chConfig)
	if st, err := os.Stat(config); err == nil && st.Mode().IsRegular() {
		s.Files[chConfig] = config
	} else {
		s.Reading = "config.json is missing, without which Cloud Hypervisor does not restore it"
	}
	return s, nil
}
