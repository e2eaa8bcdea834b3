package access

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// Place is what the arguments of a command name: a store, and checkpoints of it.
type Place struct {
	Store string
	Mount string // the mount that it was named by; "": it was named by the store's directory
	Names []string
}

// Find takes the arguments of a command apart. The first is STORE, MNT, STORE/NAME or MNT/NAME, and each of
// the others NAME or, as a shell makes them of MNT/web-*, again one of the latter of the same store.
//
// Whether the store is one, and has these checkpoints, shows when it is opened.
func Find(ctx context.Context, first string, others ...string) (Place, error) {
	p, err := find(ctx, first)
	if err != nil {
		return p, err
	}
	for _, arg := range others {
		if !strings.ContainsRune(arg, filepath.Separator) {
			p.Names = append(p.Names, arg)
			continue
		}
		q, err := find(ctx, arg)
		switch {
		case err != nil:
			return p, err
		case len(q.Names) == 0 || !samePlace(p.Store, q.Store):
			return p, exitcode.Errorf(exitcode.BadName, "%s is not a checkpoint of %s", arg, first)
		}
		p.Names = append(p.Names, q.Names...)
	}
	return p, nil
}

// find is Find of one argument.
func find(ctx context.Context, path string) (Place, error) {
	if _, on, err := fs.Locate(path); err == nil && on {
		return findOnMount(ctx, path)
	}
	if dir, name := filepath.Split(filepath.Clean(path)); dir != "" && !exists(path) && index.IsStore(dir) {
		return Place{Store: filepath.Clean(dir), Names: []string{name}}, nil
	}
	return Place{Store: path}, nil
}

func findOnMount(ctx context.Context, path string) (Place, error) {
	m, err := Resolve(ctx, path)
	if err != nil {
		return Place{}, err
	}
	st, err := m.status(ctx)
	if err != nil {
		return Place{}, err
	}
	p := Place{Store: st.Store, Mount: m.Root}
	if m.Name != "" && m.Name != Dot {
		p.Names = []string{m.Name}
	}
	return p, nil
}

func (m Mount) status(ctx context.Context) (control.Status, error) {
	server, err := m.Server(ctx)
	if err != nil {
		return control.Status{}, err
	}
	return server.Status(ctx)
}

// Whole is the store that an argument names which must not name a checkpoint.
func Whole(ctx context.Context, path string) (string, error) {
	p, err := Find(ctx, path)
	if err == nil && len(p.Names) > 0 {
		err = exitcode.Errorf(exitcode.Usage, "%s is one checkpoint: give STORE or MNT", path)
	}
	return p.Store, err
}

// One is the only checkpoint that a Place names.
func (p Place) One() (string, error) {
	switch len(p.Names) {
	case 0:
		return "", exitcode.WithHint(exitcode.Usage, fmt.Errorf("which checkpoint of %s?", p.Store),
			fmt.Sprintf("\"thaw ls %s\" lists them", p.Store))
	case 1:
		return p.Names[0], nil
	}
	return "", exitcode.Errorf(exitcode.Usage, "give one checkpoint, not %s", strings.Join(p.Names, ", "))
}

// MountOf is the root of the mount that a Place is served on: by its server, where it was named by its store.
func MountOf(ctx context.Context, p Place) (string, error) {
	if p.Mount != "" {
		return p.Mount, nil
	}
	st, ok, err := ServerStatus(ctx, p.Store)
	switch {
	case err != nil:
		return "", err
	case !ok && !index.IsStore(p.Store):
		return "", NotOnMount(p.Store)
	case !ok:
		return "", exitcode.WithHint(exitcode.NotFound, fmt.Errorf("the store %s is not mounted", p.Store),
			fmt.Sprintf("mount it with: thaw mount %s MNT", p.Store))
	}
	return st.Mount, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func samePlace(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return a == b
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
