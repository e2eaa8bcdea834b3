package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/server"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// Groups of `thaw --help`.
const (
	groupStart = "start"
	groupStore = "store"
	groupMount = "mount"
	groupSets  = "sets"
	groupVM    = "vm"
	groupTools = "tools"
)

// commands lists every verb: the only place that a new one is added to.
func commands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newDoctorCommand(a),
		newDemoCommand(a),
		newCompareCommand(a),
		newImportCommand(a),
		newExportCommand(a),
		newLsCommand(a),
		newInspectCommand(a),
		newRmCommand(a),
		newCheckCommand(a),
		newGCCommand(a),
		newMountCommand(a),
		newUmountCommand(a),
		newStatsCommand(a),
		newWSCommand(a),
		newBenchCommand(a),
		newVMCommand(a),
		newVersionCommand(a),
		newGenerateCommand(a),
		newRawCommand(a),
		newHelperCommand(access.KeeperCommand, index.KeeperMain),
		newHelperCommand(server.ProberCommand, fs.ProberMain),
	}
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "thaw",
		Short: "Restore saved virtual machines by their working set",
		Long: `thaw keeps the memory of saved virtual machines in a store, compressed and
deduplicated, and serves it as plain files on a mount. Opening a checkpoint's
memory brings its working set into the page cache before the open returns; the
rest comes page by page when it is touched. Any VMM that can map a file as guest
memory restores from it.

Data goes to stdout, progress and messages to stderr. A store can be changed while it is
mounted: the mount shows what it has then, and machines that run go on. Sizes take
KiB, MiB, GiB (also K, M, G; KB, MB, GB count in 1000s), times ms, s, m, h.

"thaw COMMAND --help" is the manual of a command, "thaw help exit-codes" explains the
exit status. Begin with "thaw doctor", which says what this host can do, and "thaw demo".`,
		Example: `  thaw import /srv/store /var/lib/vm/web-1
  thaw mount /srv/store /mnt/thaw --daemon
  thaw vm restore /mnt/thaw/web-1`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			a.started = true
			a.setup()
			a.patience.Store(int64(patienceWith(cmd)))
		},
	}
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Start here:"},
		&cobra.Group{ID: groupStore, Title: "The store:"},
		&cobra.Group{ID: groupMount, Title: "The mount:"},
		&cobra.Group{ID: groupSets, Title: "Working sets:"},
		&cobra.Group{ID: groupVM, Title: "Virtual machines:"},
		&cobra.Group{ID: groupTools, Title: "Tools:"},
	)
	root.SetHelpCommandGroupID(groupTools)
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print JSON instead of tables, errors included")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress, no messages but errors")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log what is going on")
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.AddCommand(commands(a)...)
	root.AddCommand(newExitCodesTopic(a))
	root.AddCommand(newTopics()...)
	return root
}

// parent makes a command of commands: without a verb it prints its help, a verb that it does not
// have is an error.
func parent(cmd *cobra.Command, verbs ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(verbs...)
	return cmd
}

// run executes one command line and returns the exit status. It is all of main but the process.
func (a *app) run(ctx context.Context, args []string) exitcode.Code {
	a.out = &output{w: a.stdout}
	a.stdout = a.out
	root := newRootCommand(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = a.silent
	}
	if err == nil {
		err = a.out.failed()
	}
	if err == nil {
		return exitcode.OK
	}
	if !a.started && !errors.Is(err, context.Canceled) && a.out.failed() == nil {
		// Nothing ran yet: cobra did not like the command line.
		err = exitcode.WithHint(exitcode.Usage, err, usageHint(cmd))
	}
	return a.fail(ctx, err)
}

// usageHint says how the command is called that a command line was for.
func usageHint(cmd *cobra.Command) string {
	if cmd.HasSubCommands() {
		return fmt.Sprintf(`see "%s --help"`, cmd.CommandPath())
	}
	return fmt.Sprintf(`usage: %s; see "%s --help"`, cmd.UseLine(), cmd.CommandPath())
}

// exitStatus is the end of a command's manual: the statuses that a script would tell apart.
func exitStatus(codes ...exitcode.Code) string {
	text := "\n\nExit status, besides 0, 1 and 4 (usage); all are in \"thaw help exit-codes\":\n\n"
	for _, e := range exitcode.Table() {
		if slices.Contains(codes, e.Code) {
			text += statusLine(e)
		}
	}
	return strings.TrimSuffix(text, "\n")
}

func statusLine(e exitcode.Entry) string {
	return "  " + pad(itoa(int(e.Code)), 5) + pad(e.Name, 18) + e.Meaning + "\n"
}

// newExitCodesTopic is a help topic: a command without Run shows up under "Additional help topics".
func newExitCodesTopic(a *app) *cobra.Command {
	long := "What the exit status of thaw means (the names are what errors are called with " +
		"--json):\n\n"
	for _, e := range exitcode.Table() {
		long += statusLine(e)
	}
	return &cobra.Command{Use: "exit-codes", Short: "What the exit status means", Long: long}
}
