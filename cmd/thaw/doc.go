// Command thaw saves the memory of virtual machines in a store and serves it as files, so that a
// machine can be used again after the time that it takes to load its working set.
//
// This is the only package that knows all the parts (index, fs, vmm, wss). It has no mechanisms
// itself: a verb parses its arguments, calls a package and shows the result.
//
// # How a verb is written
//
// One verb, one file, named after it (ls.go; ws_show.go for `thaw ws show`). In it:
//
//	type lsOptions struct{ long bool }                  // what its flags say
//
//	func newLsCommand(a *app) *cobra.Command {          // words and flags, nothing else
//		var o lsOptions
//		cmd := &cobra.Command{
//			Use:     "ls STORE",
//			Short:   "List the checkpoints of a store",
//			Long:    `...a manual: what it does, what it prints, an example...`,
//			Args:    cobra.ExactArgs(1),
//			RunE: func(cmd *cobra.Command, args []string) error {
//				return named(runLs(cmd.Context(), a, args[0], o), "ls %s", args[0])
//			},
//		}
//		cmd.Flags().BoolVar(&o.long, "long", false, "more columns")
//		return cmd
//	}
//
//	func runLs(ctx context.Context, a *app, store string, o lsOptions) error { ... }
//
// and its place in commands() of root.go. version.go is the smallest example.
//
// # Rules for every verb
//
//   - Data goes to a.stdout, everything else to a.stderr: a.note for words to the user (silent with
//     --quiet), a.log for messages of the packages (more with --verbose), a.progress for long
//     work (a bar only where stderr is a terminal).
//   - A verb that shows something takes --json: `if a.json { return a.printJSON(v) }`. Fields of the
//     JSON are only ever added. Tables are printed by a.table.
//   - Sizes are printed by size (IEC: 1.5 GiB) and parsed by sizeFlag (KiB/MiB/GiB, KB/MB/GB; bare
//     K/M/G/T count in 1024s).
//   - ctx ends on SIGINT, SIGTERM and SIGHUP; a verb stops its work, cleans up and returns ctx's error.
//   - An error says what was being done to what (named). Errors that a script may distinguish get a code
//     from internal/exitcode and a hint that says what to do; errors.go gives the codes of the
//     parts' own errors in one table, so that a verb just returns them.
//   - `thaw ws` and `thaw vm` are parents: their verbs are listed in ws.go and vm.go.
//   - No verb calls os.Exit, prints an error itself, or keeps state in a package variable.
//
// # Rooms
//
// What is not words, flags and output of one verb has a package of its own under internal:
//
//   - access: how a verb reaches a store, and the server of its mount. No verb waits for a server
//     without a bound: every path that it is given goes through access.Answering before it is used. A
//     command that one of them finds in a system call is ended by endAnyway (main.go).
//   - server: the process of `thaw mount`. It only reads the store.
//   - control: the socket between the two, and its verbs.
//   - process: this program as another process (servers, keepers, probers, the machines of a lab), and
//     what makes a process fit for being depended upon.
//   - uffd: the memory of one VM, served through userfaultfd, and the guard beside it.
//   - importer: what of a checkpoint goes into a store, and in which order.
//   - lab: restores by many methods, for demo and compare.
//   - doctor, verify: what `thaw doctor` and `thaw bench` find out.
//   - logs: how messages look in a log, and how often one is written.
//   - bugreport: the archive of `thaw doctor --report`.
//   - keys: where the key of a sealed store is.
//   - exitcode, outfile: how a command ends, and the files that it leaves.
//
// A verb that has changed a store ends with a.silent = access.Follow(...), one that has looked at it
// with access.Heed(...): the work counts, also where the server of the mount does not answer.
//
// # Package
//
// packaging has the Debian package: the unit, the scripts, and "build", which makes it. It is a module of
// its own, because the packager needs some sixty modules, and newer versions of some that thaw has. Manual
// pages are made of the commands (generate.go), and mount.thaw is this program by another name
// (mounthelper.go), whose options are the flags of "thaw mount".
//
// # Output
//
// Everything is printed through one output (output.go), whose first error makes the command fail.
// Package outfile writes files: after an error they are as they were before. Only their owner can read
// files that contain guest memory.
//
// # Tests
//
// testdata/script has command lines and their expected results, in testscript's language with a few
// additional commands (script_test.go lists them). They run thaw as a process of its own, as a
// user does.
package main
