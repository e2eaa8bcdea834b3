package index

import (
	"context"
	"errors"
)

// CheckOptions is how closely to look.
type CheckOptions struct {
	// ReadData decodes every page and compares it with its hash.
	ReadData bool
	// Rebuild throws the Badger index away first and makes it again from packs and checkpoints.
	Rebuild  bool
	Progress func(Progress)
}

// CheckReport is what was looked at and what is wrong with it.
type CheckReport struct {
	Checkpoints int       `json:"checkpoints"`
	Packs       int       `json:"packs"`
	Pages       uint64    `json:"pages"`      // stored pages in the directories of packs
	PagesRead   uint64    `json:"pages_read"` // with ReadData
	IndexKeys   uint64    `json:"index_keys"` // page hashes that Badger knows
	Rebuilt     bool      `json:"rebuilt"`
	Problems    []Problem `json:"problems"`
}

// OK is whether nothing is wrong.
func (r *CheckReport) OK() bool { return len(r.Problems) == 0 }

// Problem is one thing that is wrong.
type Problem struct {
	Checkpoint string `json:"checkpoint,omitempty"` // the one that suffers, where that is known
	Pack       string `json:"pack,omitempty"`
	What       string `json:"what"`
}

// Check verifies the store. What is wrong with it stands in the report; an error means that the
// check could not be made.
func (s *Store) Check(ctx context.Context, o CheckOptions) (CheckReport, error) {
	return CheckReport{}, errors.ErrUnsupported
}
