package index

import (
	"encoding/json"
	"time"
)

// Format names the layout of info.json.
const Format = "thaw-checkpoint 1"

// Run is a run of guest pages: Count pages from GFN on.
type Run struct {
	GFN   uint64 `json:"gfn"`
	Count uint64 `json:"count"`
}

// Checkpoint is what the store knows of a checkpoint. Its JSON is the info.json of the mount and of
// an exported directory; fields are only ever added.
type Checkpoint struct {
	Format string `json:"format"`
	Name   string `json:"name"`
	// ID is the hex of a hash over the name, the memory and the files other than the working set:
	// it stays the same when only the working set is replaced; other content under the name has another ID.
	ID          string    `json:"id"`
	Generation  uint32    `json:"generation"` // counts the changes since the import; 0 at first
	Created     time.Time `json:"created"`
	Parent      string    `json:"parent,omitempty"`
	MemoryBytes int64     `json:"memory_bytes"`
	// Pages that are not zero, zero pages, and what of them this import was the first to store.
	DataPages uint64 `json:"data_pages"`
	ZeroPages uint64 `json:"zero_pages"`
	NewPages  uint64 `json:"new_pages"`
	Layout    Layout `json:"layout"`
	// Profile is the one that it was imported with; empty for the default.
	Profile string `json:"profile,omitempty"`
	// Files are the files beside memory and info.json, with their sizes in bytes.
	Files map[string]int64 `json:"files"`
	// StoredBytes is by how much this checkpoint made the store grow, without its segment.
	StoredBytes  int64           `json:"stored_bytes"`
	SegmentBytes int64           `json:"segment_bytes"`
	WorkingSet   *WorkingSetInfo `json:"working_set,omitempty"`
	// Guest is what the VMM wrote into the info.json of its checkpoint directory.
	Guest json.RawMessage `json:"guest,omitempty"`
}

// WorkingSetInfo sums up the working set that a checkpoint's segment holds.
type WorkingSetInfo struct {
	Pages     uint64 `json:"pages"`
	ZeroPages uint64 `json:"zero_pages"`
	Runs      int    `json:"runs"`
	Frames    int    `json:"frames"`
}

// Details is what Inspect shows beyond the Checkpoint: how its page map is made.
type Details struct {
	Checkpoint
	Packs     []PackDetails `json:"packs"`
	Leaves    int           `json:"leaves"`
	Segment   uint64        `json:"segment,omitempty"` // pack number of the segment
	RootBytes int64         `json:"root_bytes"`
}

// PackDetails is one pack that a checkpoint refers to.
type PackDetails struct {
	Number     uint64 `json:"number"`
	Generation uint32 `json:"generation"`
	Bytes      int64  `json:"bytes"`
	Pages      uint64 `json:"pages"` // pages of this checkpoint in it
}
