package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/vmm/state"
)

func newVMInspectCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "inspect DIR [OTHER]",
		Short: "Show a saved machine's state, or what differs between two",
		Long: `Show the content of the state file of the checkpoint directory DIR, on disk or on a
mount: its sections with sizes and checksums, what the machine is, and of each vCPU
the registers, segments, control and debug registers, CPUID, model specific registers
and local APIC, then the interrupt controllers, timers and devices. Fields that are 0
are only shown with --all or --json. Needs no KVM.

Of a damaged file it shows as much as possible, and says what is wrong with it.

With OTHER: only the fields in which the two states differ.` +
			exitStatus(exitcode.NotFound, exitcode.BadState),
		Example: `  thaw vm inspect /tmp/saved
  thaw vm inspect /tmp/saved /mnt/thaw/web-1 --json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return named(runVMDiff(cmd.Context(), a, args[0], args[1]), "vm inspect")
			}
			return named(runVMInspect(cmd.Context(), a, args[0], all), "vm inspect")
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also show fields that are 0")
	return cmd
}

func runVMInspect(ctx context.Context, a *app, dir string, all bool) error {
	in, err := inspectState(ctx, dir)
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(in)
	} else {
		a.printInspection(in, all)
	}
	if len(in.Problems) > 0 {
		return errors.Join(err, exitcode.Errorf(exitcode.BadState, "%s: %s", in.Path,
			strings.Join(in.Problems, "; ")))
	}
	return err
}

// runVMDiff shows what differs. Also damaged files can be compared, as far as they can be read.
func runVMDiff(ctx context.Context, a *app, dir, other string) error {
	x, err := inspectState(ctx, dir)
	if err != nil {
		return err
	}
	y, err := inspectState(ctx, other)
	if err != nil {
		return err
	}
	changes := state.Diff(x, y)
	if a.json {
		if changes == nil {
			changes = []state.Change{}
		}
		return a.printJSON(changes)
	}
	rows := make([][]string, len(changes))
	for i, c := range changes {
		rows[i] = []string{c.Section, c.Field, c.A, c.B}
	}
	a.table([]string{"section", "field", dir, other}, rows)
	return nil
}

func inspectState(ctx context.Context, dir string) (*state.Inspection, error) {
	if err := access.Answering(ctx, dir); err != nil {
		return nil, err
	}
	in, err := state.Inspect(dir)
	if errors.Is(err, os.ErrNotExist) {
		err = exitcode.With(exitcode.NotFound, err)
	}
	return in, err
}

func (a *app) printInspection(in *state.Inspection, all bool) {
	a.printLines(9, lines{
		{"state", in.Path},
		{"version", in.Version},
		{"size", fmt.Sprintf("%s bytes in %s sections", count(in.Bytes), count(len(in.Sections)))},
		{"machine", string(in.Machine)},
	})
	a.printf("\n")
	var rows [][]string
	for _, s := range in.Sections {
		sum := s.Checksum
		if s.Damaged {
			sum += " WRONG"
		}
		required := "optional"
		if s.Required {
			required = "required"
		}
		rows = append(rows, []string{s.Name(), count(s.Bytes), sum, required})
	}
	a.table([]string{"section", ">bytes", "checksum", ""}, rows)
	for _, s := range in.Sections {
		a.printFields(s, all)
	}
}

func (a *app) printFields(s state.SectionInfo, all bool) {
	width, zeros := 0, 0
	for _, f := range s.Fields {
		width = max(width, len(f.Name))
	}
	a.printf("\n%s\n", s.Name())
	for _, f := range s.Fields {
		if !all && strings.Trim(f.Value, "0x") == "" {
			zeros++
			continue
		}
		a.printf("  %-*s  %s\n", width, f.Name, f.Value)
	}
	if zeros > 0 {
		a.printf("  (%s fields are 0)\n", count(zeros))
	}
}
