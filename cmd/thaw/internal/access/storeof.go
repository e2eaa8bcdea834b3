package access

import (
	"context"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
)

// StoreOf is the store that a path means: itself, or the one that is mounted there.
func StoreOf(ctx context.Context, path string) (string, error) {
	if _, on, err := fs.Locate(path); err != nil || !on {
		return path, nil // what is wrong with it is said when it is opened
	}
	m, err := Resolve(ctx, path)
	if err != nil {
		return "", err
	}
	if m.Name != "" {
		return "", exitcode.WithHint(exitcode.Usage, exitcode.Errorf(exitcode.Usage,
			"%s: give a store, or the mount of one", path), "its mount is "+m.Root)
	}
	server, err := m.Server(ctx)
	if err != nil {
		return "", err
	}
	st, err := server.Status(ctx)
	return st.Store, err
}
