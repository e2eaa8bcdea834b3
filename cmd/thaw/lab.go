package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/importer"
	"github.com/thawfs/thaw/cmd/thaw/internal/lab"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/index"
	"github.com/thawfs/thaw/index/seal"
	"github.com/thawfs/thaw/vmm/guest"
	"github.com/thawfs/thaw/wss"
)

// addLabFlags adds the flags that demo and compare share; what o has is their defaults.
func addLabFlags(f *pflag.FlagSet, o *lab.Options) {
	f.Var((*sizeFlag)(&o.Guest.Memory), "memory", "memory of the machine")
	f.StringVar(&o.Guest.Program, "guest", o.Guest.Program,
		"guest program to boot and save: heap, stream, idle or random:PCT")
	f.StringArrayVar(&o.Guest.Args, "arg", nil, "option NAME=VALUE of the guest program; may be repeated")
	f.DurationVar(&o.Guest.Warm, "warm", o.Guest.Warm, "how long the machine works before it is saved")
	f.DurationVar(&o.Guest.Scan, "scan", o.Guest.Scan,
		"for how long before it is saved access bits are scanned")
	f.DurationVar(&o.Guest.Trace, "trace", o.Guest.Trace,
		"for how long after it is saved accesses are traced")
	f.DurationVar(&o.Window, "window", o.Window,
		"how long each restored machine works; the counts are over this window")
	f.StringVar(&o.Keep, "keep", "", "keep checkpoint and store in this new directory")
	f.StringVar(&o.Figure, "figure", "", "write the figure to this file, SVG")
}

// runLab runs a comparison and prints what it found.
func runLab(ctx context.Context, a *app, o lab.Options) error {
	if o.Checkpoint == "" {
		if err := checkGuest(o.Guest); err != nil {
			return err
		}
	} else if err := access.Answering(ctx, o.Checkpoint); err != nil {
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

// noKey is for stores that are not to be sealed: those of a lab, which nobody else uses.
func noKey(context.Context) (*seal.Key, error) { return nil, nil }

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
		Command:     process.Self,
		StartServer: process.StartServer,
		Import: func(ctx context.Context, store, dir, name string) (index.ImportStats, error) {
			w := access.NewWriter(a.stores, store)
			reply, err := importCheckpoint(ctx, a, w, dir, index.OpenOptions{Create: true, Keys: noKey},
				importer.Options{}, importer.Request{Name: name, Policy: wss.Policy{MaxShare: 1}, Log: a.log})
			return reply.Stats, errors.Join(err, w.Close())
		},
		Drop: func(ctx context.Context, mnt, name string) error {
			_, server, err := access.Checkpoint(ctx, filepath.Join(mnt, name))
			if err != nil {
				return err
			}
			return server.Drop(ctx, control.DropRequest{Name: name, Packs: true})
		},
		Note: a.note,
	}
}
