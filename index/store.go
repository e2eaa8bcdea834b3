package index

import (
	"context"
	"errors"
	"log/slog"

	"github.com/thawfs/thaw/index/blob"
	"github.com/thawfs/thaw/index/pack"
)

const (
	// PageSize is the size of a guest page, in bytes.
	PageSize = pack.PageSize
	// LeafPages is the number of pages that a leaf of the page map covers (2 MiB of guest memory).
	LeafPages = 512
)

// Profile is a choice between space and time: ProfileDefault or ProfileFast.
type Profile = pack.Profile

// The profiles of package pack.
const (
	ProfileDefault = pack.ProfileDefault
	ProfileFast    = pack.ProfileFast
)

// ParseProfile reads "default" or "fast".
func ParseProfile(s string) (Profile, error) { return pack.ParseProfile(s) }

// OpenOptions is how to open a store.
type OpenOptions struct {
	// Create makes a store in a missing or empty directory; a store that exists is opened.
	Create bool
	// Profile is written into a store that is created, as the default of its imports.
	Profile Profile
	// Log tells what was rolled forward or swept away. Nil is silence.
	Log *slog.Logger
	// Blobs holds packs and checkpoints; nil means the store's own directory.
	Blobs blob.Store
}

// Store is an open store. All methods may be called by many goroutines at once.
type Store struct{}

// Open opens the store in dir, which one process at a time can do (ErrLocked otherwise).
func Open(ctx context.Context, dir string, o OpenOptions) (*Store, error) {
	return nil, errors.ErrUnsupported
}

// Close closes the store. Images must be closed before.
func (s *Store) Close() error { return errors.ErrUnsupported }

// Progress says how far long work is. Stage names what is counted, in Unit: "bytes", "pages", ....
type Progress struct {
	Stage string `json:"stage"`
	Unit  string `json:"unit"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // 0: not known
}

// List gives all checkpoints, by name.
func (s *Store) List(ctx context.Context) ([]Checkpoint, error) { return nil, errors.ErrUnsupported }

// Inspect looks at one checkpoint closely.
func (s *Store) Inspect(ctx context.Context, name string) (Details, error) {
	return Details{}, errors.ErrUnsupported
}

// Remove forgets a checkpoint. Its space is given back by GC. ErrInUse while it has open images.
func (s *Store) Remove(ctx context.Context, name string) error { return errors.ErrUnsupported }

// SetWorkingSet gives a checkpoint a new working set: text becomes its working-set file as it is,
// hot (first-touch order) its segment. Memory and ID stay as they are. Empty text takes the set away.
func (s *Store) SetWorkingSet(ctx context.Context, name string, text []byte, hot []Run) (Checkpoint, error) {
	return Checkpoint{}, errors.ErrUnsupported
}

// DropCaches evicts a checkpoint's packs from the host's page cache, for cold measurements.
func (s *Store) DropCaches(ctx context.Context, name string) error { return errors.ErrUnsupported }
