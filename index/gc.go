package index

import (
	"context"
	"errors"
)

// GCOptions is how to collect.
type GCOptions struct {
	DryRun   bool // say only what would be done
	Progress func(Progress)
}

// GCReport is what was given back.
type GCReport struct {
	DryRun         bool   `json:"dry_run"`
	RemovedPacks   int    `json:"removed_packs"`
	RewrittenPacks int    `json:"rewritten_packs"`
	DroppedPages   uint64 `json:"dropped_pages"`
	FreedBytes     int64  `json:"freed_bytes"`
	// DeadBytes is what nothing refers to and stays for now: not worth a rewrite, or held by open
	// images.
	DeadBytes int64 `json:"dead_bytes"`
}

// GC gives back the space of what was removed: it deletes packs that no checkpoint refers to and
// rewrites those of which it is worth it.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCReport, error) {
	return GCReport{}, errors.ErrUnsupported
}
