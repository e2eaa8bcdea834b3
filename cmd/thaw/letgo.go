package main

import (
	"context"
	"fmt"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

// letGo asks the server of a store to let go of a checkpoint that is to be removed, renamed or replaced. It
// refuses while the memory is open.
func letGo(ctx context.Context, store, name string) error {
	server, err := access.Server(ctx, store)
	if err != nil {
		return fmt.Errorf("cannot find out what is in use: %w", err)
	}
	if server == nil {
		return nil
	}
	if err := server.Release(ctx, name); err != nil && !exitcode.Has(err, exitcode.NotFound) {
		return err
	}
	return nil
}
