package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/doctor"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
)

func newDoctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Find out what this host can do, and what thaw does without the rest",
		Long: `Check what thaw can use on this host: FUSE and its features, the right to mount, KVM
and its kind, userfaultfd, cachestat and more. Everything is tried, not guessed from
the version of the kernel: an empty file system is mounted and a guest runs, for a
moment. Nothing stays changed.

For each missing or limited feature it says what thaw does without it. It is an error
if a feature is missing that every mount needs.` + exitStatus(exitcode.Unsupported),
		Example: `  thaw doctor
  thaw doctor --json | jq '.checks[] | select(.status != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), a) },
	}
}

func runDoctor(ctx context.Context, a *app) error {
	report := doctor.Run(ctx)
	if err := ctx.Err(); err != nil {
		return err
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
