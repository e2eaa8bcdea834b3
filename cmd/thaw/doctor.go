package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/doctor"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

func newDoctorCommand(a *app) *cobra.Command {
	var o reportOptions
	cmd := &cobra.Command{
		Use:   "doctor [--report FILE [STORE | MNT]...]",
		Short: "Find out what this host can do, and what thaw does without the rest",
		Long: `Check what thaw can use on this host: FUSE and its features, the right to mount, KVM
and its kind, userfaultfd, cachestat and more. Everything is tried, not guessed from
the version of the kernel: an empty file system is mounted and a guest runs, for a
moment. Nothing stays changed.

For each missing or limited feature it says what thaw does without it. It is an error
if a feature is missing that every mount needs.

With --report it also makes an archive (tar.gz) to go with the report of a fault: what it
found, versions and limits of this host, and of each mount of thaw, or of the stores and
mounts that are named, the counters, the end of the log, what the server does, and the sizes
of the store. There is nothing in it of the memory of machines, nor of the other files of
checkpoints. Their names, and the paths of stores and mounts, are replaced by words, but
with --with-names. README.txt in it says what each file is. Parts that cannot be had, as of a
server that hangs, are left out, with the reason.` +
			exitStatus(exitcode.Exists, exitcode.Unsupported),
		Example: `  thaw doctor
  thaw doctor --json | jq '.checks[] | select(.status != "ok")'
  thaw doctor --report thaw-report.tar.gz`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.file == "" {
				return cobra.NoArgs(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDoctor(cmd.Context(), a, args, o)
		},
	}
	cmd.Flags().StringVar(&o.file, "report", "", "write an archive for the report of a fault to this new file")
	cmd.Flags().BoolVar(&o.withNames, "with-names", false, "with --report: leave names and paths as they are")
	return cmd
}

func runDoctor(ctx context.Context, a *app, places []string, o reportOptions) error {
	report := doctor.Run(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.file != "" {
		if err := writeReport(ctx, a, report, places, o); err != nil {
			return named(err, "doctor --report")
		}
	}
	if a.json {
		if err := a.printJSON(report); err != nil {
			return err
		}
	} else {
		a.showDoctor(report)
	}
	if report.Usable {
		return nil
	}
	var lacking []string
	for _, c := range report.Checks {
		if c.Needed && c.Status == doctor.Missing {
			lacking = append(lacking, c.Name)
		}
	}
	return exitcode.Errorf(exitcode.Unsupported, "this host cannot mount a store: it lacks %s",
		strings.Join(lacking, ", "))
}

func (a *app) showDoctor(report doctor.Report) {
	for _, c := range report.Checks {
		a.printf("%s%s%s\n", pad(string(c.Status), 9), pad(c.Name, 15), c.Found)
		if c.Without != "" && c.Status != doctor.OK {
			a.printf("%s%s\n", strings.Repeat(" ", 24), "without it: "+c.Without)
		}
	}
}
