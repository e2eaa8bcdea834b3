package index

import (
	"context"
	"errors"
)

// ImportOptions is how to import.
type ImportOptions struct {
	// Name of the checkpoint; it must be free.
	Name string
	// Profile to store new pages with.
	Profile Profile
	// Hot is the working set in first-touch order: laid out first, and copied into a segment.
	Hot []Run
	// Progress is called now and then, by one goroutine at a time. May be nil.
	Progress func(Progress)
}

// ImportStats is what an import did.
type ImportStats struct {
	MemoryBytes  int64   `json:"memory_bytes"`
	ReadBytes    int64   `json:"read_bytes"` // without the holes
	ZeroPages    uint64  `json:"zero_pages"`
	DupPages     uint64  `json:"duplicate_pages"` // stored already, by this import or an older one
	NewPages     uint64  `json:"new_pages"`
	NewLeaves    int     `json:"new_leaves"`
	SharedLeaves int     `json:"shared_leaves"`
	StoredBytes  int64   `json:"stored_bytes"` // packs and root, without the segment
	SegmentBytes int64   `json:"segment_bytes"`
	Seconds      float64 `json:"seconds"`
}

// Import stores a checkpoint. It is there whole, or not at all.
func (s *Store) Import(ctx context.Context, src Source, o ImportOptions) (Checkpoint, ImportStats, error) {
	return Checkpoint{}, ImportStats{}, errors.ErrUnsupported
}
