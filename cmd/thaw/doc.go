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
//			GroupID: groupStore,
//			Args:    cobra.ExactArgs(1),
//			RunE: func(cmd *cobra.Command, args []string) error {
//				return runLs(cmd.Context(), a, args[0], o)
//			},
//		}
//		cmd.Flags().BoolVar(&o.long, "long", false, "more columns")
//		return cmd
//	}
//
//	func runLs(ctx context.Context, a *app, store string, o lsOptions) error { ... }
//
// and one line in commands() of root.go. version.go is the smallest example.
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
//   - ctx ends on SIGINT and SIGTERM; a verb stops its work, cleans up and returns ctx's error.
//   - An error says what was being done to what. Errors that a script may distinguish get a code
//     from internal/exitcode and a hint that says what to do; errors.go gives the codes of the
//     parts' own errors in one table, so that a verb just returns them.
//   - `thaw ws` and `thaw vm` are parents: their verbs are listed in ws.go and vm.go.
//   - No verb calls os.Exit, prints an error itself, or keeps state in a package variable.
//
// # A store and its server
//
// A verb that only reads a store opens it by readStore: without a lock, whether it is mounted or
// not, writable or not. A verb that changes it opens it by writeStore (one at a time; another one is
// waited for), with the index in a keeper process (keeper.go); afterwards follow asks the server of
// the mount, where there is one, to show the change. The server (serve.go) itself only reads the
// store. Its control socket (serve_verbs.go) has the verbs that need the mount: its users, the record
// of its reads, unmounting. So no command can end the server by an error.
//
// # Bounded waiting
//
// Nothing waits for a server without a bound: resolveMount finds a mount by the table of mounts and
// asks the server for one link, within answerPatience; answering does that for every path that a
// verb is given before it uses it; package control bounds what is asked over the socket. A command
// that SIGINT or SIGTERM finds in a system call is ended by endAnyway (main.go).
//
// # Processes
//
// A server never shares its process with anything that uses its mount. Servers in the background, the
// processes of a lab (package internal/lab: demo and compare), the residency prober of a server and the
// keeper of an index are this program again (selfCommand); a server tells the command that started it
// through a pipe that it is ready, or the error that it ended with (daemon.go). A server ends only
// when it is asked to: lasting (lasting.go) ignores other signals, writes its log in a goroutine so that
// nothing waits for it, and asks the kernel to spare it when memory runs out.
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
