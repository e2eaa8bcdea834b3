package index

import (
	"context"
	"errors"
)

// Export writes a checkpoint back as a plain checkpoint directory, which must not exist: sparse,
// complete or not there at all.
func (s *Store) Export(ctx context.Context, name, dir string, progress func(Progress)) error {
	return errors.ErrUnsupported
}
