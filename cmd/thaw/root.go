package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/thawfs/thaw/cmd/thaw/internal/access"
	"github.com/thawfs/thaw/cmd/thaw/internal/control"
	"github.com/thawfs/thaw/cmd/thaw/internal/exitcode"
	"github.com/thawfs/thaw/cmd/thaw/internal/server"
	"github.com/thawfs/thaw/fs"
	"github.com/thawfs/thaw/index"
)

// group is a part of `thaw --help`.
type group struct {
	title string
	verbs []*cobra.Command
}

// commands lists every verb: the only place that a new one is added to. The group of the last ones
// has no title: they are hidden.
func commands(a *app) []group {
	verbs := func(list ...*cobra.Command) []*cobra.Command { return list }
	return []group{
		{"Start here:", verbs(newDoctorCommand(a), newDemoCommand(a), newCompareCommand(a))},
		{"The store:", verbs(newInitCommand(a), newImportCommand(a), newExportCommand(a), newLsCommand(a),
			newInspectCommand(a), newMvCommand(a), newRmCommand(a), newCheckCommand(a), newGCCommand(a),
			newRepackCommand(a))},
		{"The mount:", verbs(newMountCommand(a), newUmountCommand(a), newUpgradeCommand(a),
			newStatsCommand(a), newTopCommand(a), newUffdCommand(a))},
		{"Working sets:", verbs(newWSCommand(a))},
		{"Virtual machines:", verbs(newVMCommand(a))},
		{groupTools, verbs(newBenchCommand(a), newVersionCommand(a))},
		{"", verbs(newGenerateCommand(), newRawCommand(a), newIdleRepackCommand(a),
			newLearnerCommand(a), newHolderCommand(a),
			newHelperCommand(access.KeeperCommand, index.KeeperMain),
			newHelperCommand(server.ProberCommand, fs.ProberMain), newGuardCommand(),
			newMounterCommand())},
	}
}

const groupTools = "Tools:" // where help is, too

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
	for _, g := range commands(a) {
		if g.title != "" {
			root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		}
		for _, cmd := range g.verbs {
			cmd.GroupID = g.title
			root.AddCommand(cmd)
		}
	}
	root.SetHelpCommandGroupID(groupTools)
	root.InitDefaultHelpCmd()
	knownTopics(root)
	root.Version = buildVersion().Version // --version
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print JSON instead of tables, errors included")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress, no messages but errors")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log what is going on")
	f.Var(&a.logFormat, "log-format", "write messages as lines of a log with times: text or json")
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.AddCommand(append(newTopics(), newExitCodesTopic())...)
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
	a.request = control.NewRequest()
	ctx = control.WithRequest(ctx, a.request)
	a.setup() // for what is wrong with the command line
	root := newRootCommand(a)
	root.SetArgs(args)
	a.json = slices.Contains(args, "--json") // also where what is wrong stands before it
	cmd, err := root.ExecuteContextC(ctx)
	if err = cmp.Or(err, a.silent, a.out.failed()); err == nil {
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
func newExitCodesTopic() *cobra.Command {
	long := "What the exit status of thaw means (the names are what errors are called with " +
		"--json):\n\n"
	for _, e := range exitcode.Table() {
		long += statusLine(e)
	}
	return &cobra.Command{Use: "exit-codes", Short: "What the exit status means", Long: long}
}
