package main

import (
	"context"
	"errors"

	"github.com/thawfs/thaw/cmd/thaw/internal/lab"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/vmm/guest"
)

// runLab runs a comparison and prints what it found.
func runLab(ctx context.Context, a *app, o lab.Options) error {
	if o.Checkpoint == "" {
		if err := checkGuest(o.Guest); err != nil {
			return err
		}
	} else if err := answering(ctx, o.Checkpoint); err != nil {
		return err
	}
	c, err := lab.New(a.labProgram(), o)
	if err != nil {
		return err
	}
	if err := usableHost(); err != nil {
		return err
	}
	r, err := c.Run(ctx)
	switch {
	case r == nil:
		return err
	case a.json:
		return errors.Join(a.printJSON(r), err)
	}
	return errors.Join(r.Print(a.stdout), err)
}

// checkGuest refuses a guest that cannot be booted.
func checkGuest(g lab.Guest) error {
	spec := guest.Spec{Program: g.Program}
	if err := parseGuestArgs(&spec, g.Args); err != nil {
		return err
	}
	return checkMemory(g.Memory)
}

// labProgram is what a lab needs of this program.
func (a *app) labProgram() lab.Program {
	return lab.Program{
		Command:     selfCommand,
		StartServer: startUntilReady,
		Import:      a.labImport,
		Drop:        labDrop,
		Note:        a.note,
	}
}

func (a *app) labImport(ctx context.Context, store, dir, name string) (st index.ImportStats, err error) {
	src, err := openSource(dir)
	if err != nil {
		return st, err
	}
	defer src.close()
	err = a.writeStore(ctx, store, index.OpenOptions{Create: true}, func(s *index.Store) error {
		p := a.progress()
		defer p.done()
		reply, err := importInto(ctx, s, src, importRequest{Name: name, MaxShare: 1}, a.log, p.set)
		st = reply.Stats
		return err
	})
	return st, err
}

func labDrop(ctx context.Context, mnt, name string) error {
	ref, err := resolveMount(ctx, mnt)
	if err != nil {
		return err
	}
	client, err := ref.server(ctx)
	if err != nil {
		return err
	}
	return client.Call(ctx, verbDrop, dropRequest{Name: name, Packs: true}, nil)
}
