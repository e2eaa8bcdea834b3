package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/native"
	"github.com/thawfs/thaw/index"
)

func newExportCommand(a *app) *cobra.Command {
	var o index.ExportOptions
	var own bool
	cmd := &cobra.Command{
		Use:   "export {STORE NAME | MNT/NAME} DIR",
		Short: "Write a checkpoint as a plain directory",
		Long: `Write a checkpoint as a plain checkpoint directory, byte for byte what was imported.
DIR must not exist; after an error there is no DIR. "memory" is written sparsely:
pages of zeros are holes. Only its owner can read it. With --json: {"name": NAME,
"dir": DIR}.

Every page is compared with its hash. If the checkpoint is damaged, nothing is
written, and the error says what is lost; "thaw check --repair" may restore it. With
--salvage the good part is written, under names that show that it is not complete:
"memory.salvaged", in which lost pages read as zeros, files with holes as
NAME.salvaged, and "holes.json" lists what is missing. The exit status is still that
of a damaged checkpoint.

With --native the files are those of the VMM that saved the checkpoint, by the names that
they have on a mount: "mem" and "vmstate" of Firecracker, "memory-ranges", "config.json"
and "state.json" of Cloud Hypervisor, "migration-stream" of QEMU, "libvirt-save" of
libvirt. A stream is written anew: each page once, in the order of the addresses, and not
compressed.` +
			exitStatus(exitcode.NotStore, exitcode.NotImage, exitcode.Damaged, exitcode.NotFound,
				exitcode.Exists, exitcode.NoSpace),
		Example: `  thaw export /srv/store web-1 /var/tmp/web-1
  thaw export /mnt/thaw/web-1 /var/tmp/web-1
  thaw export --native /srv/store fedora /var/tmp/fedora && virsh restore /var/tmp/fedora/libvirt-save`,
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: completeNameAndFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if own {
				o.Finish = finishNative
			}
			last := len(args) - 1
			return named(runExport(cmd.Context(), a, args[:last], args[last], o), "export %s",
				strings.Join(args[:last], " "))
		},
	}
	cmd.Flags().BoolVar(&o.Salvage, "salvage", false,
		"write the good part of a damaged checkpoint, and a list of the holes")
	cmd.Flags().BoolVar(&own, "native", false, "write the files of the VMM that saved it")
	return cmd
}

// finishNative gives an exported checkpoint the names of its VMM.
func finishNative(dir string, c index.Checkpoint) error {
	err := native.Export(dir, &c)
	if errors.Is(err, native.ErrNoNames) {
		return exitcode.WithHint(exitcode.NotImage, err, "export it without --native")
	}
	return err
}

func runExport(ctx context.Context, a *app, what []string, dir string, o index.ExportOptions) error {
	p, err := access.Find(ctx, what[0], what[1:]...)
	if err != nil {
		return err
	}
	name, err := p.One()
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := access.Answering(ctx, filepath.Dir(abs)); err != nil {
		return err
	}
	_, err = access.Read(ctx, a.stores, p.Store, func(s *index.Store) (any, error) {
		p := a.progress()
		defer p.done()
		o.Progress = p.set
		return nil, s.Export(ctx, name, abs, o)
	})
	if errors.Is(err, index.ErrExists) {
		return exitcode.WithHint(exitcode.Exists, err, "give a DIR that does not exist; nothing was written")
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]string{"name": name, "dir": abs})
	}
	a.note("exported %s to %s", name, dir)
	return nil
}
