package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/lab"
	"github.com/thawfs/thaw/cmd/thaw/internal/lab/rawfs"
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
			err := serveRaw(cmd.Context(), a, args[0], args[1], args[2], args[3], args[4])
			if err != nil {
				return fmt.Errorf("serve %s on %s as it is: %w", args[0], args[1], err)
			}
			return nil
		},
	}
}

func serveRaw(ctx context.Context, a *app, path, mnt, name, policy, diskName string) error {
	pipe := readyPipe()
	defer a.lasting()()
	s, err := mountRaw(ctx, a, path, mnt, name, policy, diskName)
	tellReady(pipe, err)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

func mountRaw(ctx context.Context, a *app, path, mnt, name, policy, diskName string) (
	*rawfs.Server, error) {
	o := fs.Options{Log: a.log}
	var d *disk.Disk
	var err, derr error
	o.Policy, err = fs.ParsePolicy(policy)
	spec, derr := disk.ParseSpec(diskName)
	if err := errors.Join(err, derr); err != nil {
		return nil, exitcode.With(exitcode.Usage, err)
	}
	if !spec.Native() {
		d = disk.New(spec)
		o.Collectors = diskMetrics(d)
	}
	return rawfs.Mount(ctx, path, mnt, name, d, o)
}
