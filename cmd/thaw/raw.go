package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/lab"
	"github.com/thawfs/thaw/cmd/thaw/internal/lab/rawfs"
	"github.com/thawfs/thaw/cmd/thaw/internal/process"
	"github.com/thawfs/thaw/cmd/thaw/internal/server"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index/blob/disk"
)

// newRawCommand is the server that a lab starts for its raw methods, and hidden: it serves a plain
// checkpoint directory, without a store.
func newRawCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    lab.RawCommand + " PATH MNT NAME POLICY DISK",
		Hidden: true,
		Args:   cobra.ExactArgs(5),
		RunE: func(cmd *cobra.Command, args []string) error {
			return named(serveRaw(cmd.Context(), a, args), "serve %s on %s as it is", args[0], args[1])
		},
	}
}

func serveRaw(ctx context.Context, a *app, args []string) error {
	parent := process.OpenReady()
	defer a.lasting()()
	s, err := mountRaw(ctx, a, args)
	parent.Tell(err, classify)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

func mountRaw(ctx context.Context, a *app, args []string) (*rawfs.Server, error) {
	path, mnt, name := args[0], args[1], args[2]
	policy, perr := fs.ParsePolicy(args[3])
	spec, derr := disk.ParseSpec(args[4])
	if err := errors.Join(perr, derr); err != nil {
		return nil, exitcode.With(exitcode.Usage, err)
	}
	o := fs.Options{Policy: policy, Log: a.log}
	if spec.Native() {
		return rawfs.Mount(ctx, path, mnt, name, nil, o)
	}
	d := disk.New(spec)
	o.Collectors = server.DiskMetrics(d)
	return rawfs.Mount(ctx, path, mnt, name, d, o)
}
