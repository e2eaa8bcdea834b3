package main

import (
	"context"

	"github.com/thawfs/thaw/cmd/thaw/internal/control"
)

// Verbs of the control socket.
const (
	verbStatus   = "status"
	verbImport   = "import"
	verbExport   = "export"
	verbList     = "list"
	verbInspect  = "inspect"
	verbRemove   = "remove"
	verbCheck    = "check"
	verbGC       = "gc"
	verbSetWS    = "set-working-set"
	verbReadFile = "read-file"
	verbDrop     = "drop"    // server only: make an image cold
	verbUnmount  = "unmount" // server only
	verbRecord   = "record"  // server only: a read trace becomes the working set
)

// storeVerbs are the handlers of everything that storeAPI does. changed is called after the list
// of checkpoints changed, or one of them, and before the command hears of it: the tree follows.
func storeVerbs(s storeAPI, changed func(context.Context) error) map[string]control.Handler {
	then := func(ctx context.Context, v any, err error) (any, error) {
		if err == nil {
			err = changed(ctx)
		}
		return v, err
	}
	type none struct{}
	return map[string]control.Handler{
		verbImport: control.Handle(func(ctx context.Context, r importRequest, p progressFunc) (any,
			error) {
			v, err := s.Import(ctx, r, p)
			return then(ctx, v, err)
		}),
		verbExport: control.Handle(func(ctx context.Context, r exportRequest, p progressFunc) (any,
			error) {
			return nil, s.Export(ctx, r, p)
		}),
		verbList: control.Handle(func(ctx context.Context, _ none, _ progressFunc) (any, error) {
			return s.List(ctx)
		}),
		verbInspect: control.Handle(func(ctx context.Context, r nameRequest, _ progressFunc) (any,
			error) {
			return s.Inspect(ctx, r.Name)
		}),
		verbRemove: control.Handle(func(ctx context.Context, r nameRequest, _ progressFunc) (any, error) {
			return then(ctx, nil, s.Remove(ctx, r.Name))
		}),
		verbCheck: control.Handle(func(ctx context.Context, r checkRequest, p progressFunc) (any, error) {
			return s.Check(ctx, r, p)
		}),
		verbGC: control.Handle(func(ctx context.Context, r gcRequest, p progressFunc) (any, error) {
			return s.GC(ctx, r, p)
		}),
		verbSetWS: control.Handle(func(ctx context.Context, r setRequest, _ progressFunc) (any, error) {
			v, err := s.SetWorkingSet(ctx, r.Name, r.Text)
			return then(ctx, v, err)
		}),
		verbReadFile: control.Handle(func(ctx context.Context, r nameRequest, _ progressFunc) (any,
			error) {
			return s.ReadFile(ctx, r.Name, r.File)
		}),
	}
}
