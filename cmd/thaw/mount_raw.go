package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/rawfs"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index/blob/disk"
)

type mountRawOptions struct {
	restore, name string
	disk          diskFlag
}

func newMountRawCommand(a *app) *cobra.Command {
	var o mountRawOptions
	cmd := &cobra.Command{
		Use:   "mount-raw PATH MNT",
		Short: "Serve a checkpoint directory as it is, to compare with",
		Long: `Serve the checkpoint directory PATH (or a bare memory file) on MNT without a store: the
memory is read from its file. It looks like a store's checkpoint, MNT/NAME/memory and the
files beside it, and MNT/NAME/stats.json counts in the same way. It is there to compare
with: what does a VMM do that maps the plain file from the same disk?

With --restore=lazy pages come when they are touched, with the kernel's read-ahead for
local files (up to 128 KiB around a fault, unless the mapping has MADV_RANDOM). With
--restore=eager opening the memory reads the file from its beginning to its end first.

` + diskHelp + ` The data of the file lies on it in one piece, holes take no
place and no time. Files beside the memory are not charged.

The server stays in the foreground, says on stderr when it is ready, and ends with
SIGTERM or SIGINT, or when MNT is unmounted.` +
			exitStatus(exitcode.NotFound, exitcode.BadName, exitcode.NotImage, exitcode.Mount,
				exitcode.MountPoint, exitcode.Unsupported),
		Example: `  thaw mount-raw /var/lib/vm/web-1 /mnt/raw --disk=hdd &
  thaw bench /mnt/raw/web-1/memory --rw=randread --io-size=4MiB --madvise=normal`,
		GroupID: groupTools,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := runMountRaw(cmd.Context(), a, args[0], args[1], o); err != nil {
				return fmt.Errorf("mount %s on %s as it is: %w", args[0], args[1], err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.restore, "restore", "lazy", "what opening memory brings: lazy or eager")
	f.StringVar(&o.name, "name", "", "name to show it under (default: the last element of PATH)")
	o.disk.add(f)
	return cmd
}

func runMountRaw(ctx context.Context, a *app, path, mnt string, o mountRawOptions) (err error) {
	pipe := readyPipe()
	ready := false
	defer func() {
		if !ready {
			tellReady(pipe, err)
		}
	}()
	defer a.lasting()()
	s, err := startRawServer(ctx, a, path, mnt, o)
	if err != nil {
		return err
	}
	ready = true
	a.note("thaw: ready: %s is served as it is on %s (restore=%s, disk=%s, pid %d)", path, s.mnt,
		s.policy, o.disk.name, os.Getpid())
	tellReady(pipe, nil)
	return s.run(ctx)
}

// startRawServer mounts a plain checkpoint. The server has no store and no control socket.
func startRawServer(ctx context.Context, a *app, path, mnt string, o mountRawOptions) (
	*server, error,
) {
	s := &server{a: a, gone: make(chan struct{})}
	var err error
	if s.policy, err = fs.ParsePolicy(o.restore); err == nil && s.policy == fs.PolicyWorkingSet {
		err = errors.New("a plain file has no working set to restore")
	}
	if err != nil {
		return nil, exitcode.With(exitcode.Usage, err)
	}
	spec, err := o.disk.spec()
	if err != nil {
		return nil, err
	}
	if !spec.Native() {
		s.disk = disk.New(spec)
	}
	if err := usableHost(); err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if s.mnt, err = filepath.Abs(mnt); err != nil {
		return nil, err
	}
	if o.name == "" {
		o.name = defaultName(path)
	}
	src, err := openSource(path) // which has the hints
	if err != nil {
		return nil, err
	}
	src.close()
	store, err := rawfs.Open(path, o.name, s.disk)
	if err != nil {
		return nil, err
	}
	fo := fs.Options{Policy: s.policy, ReadAhead: rawfs.ReadAhead, Log: a.log}
	if s.disk != nil {
		fo.Collectors = diskMetrics(s.disk)
	}
	if s.fs, err = fs.Mount(ctx, store, s.mnt, fo); err != nil {
		return nil, err
	}
	go func() {
		s.fs.Wait()
		close(s.gone)
	}()
	return s, nil
}
