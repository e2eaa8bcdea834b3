// Command thaw saves the memory of virtual machines in a store and serves it as files, so that a
// machine can be used again after the time that it takes to load its working set.
//
// This is the only package that knows all the parts (index, fs, vmm, wss). It holds no mechanism of
// its own: a verb parses its arguments, calls a part and shows what came of it.
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
// # What every verb keeps to
//
//   - Data goes to a.stdout, everything else to a.stderr: a.note for words to the user (silent with
//     --quiet), a.log for what the machinery reports (more with --verbose), a.progress for long
//     work (a bar only where stderr is a terminal).
//   - Whatever shows something takes --json: `if a.json { return a.printJSON(v) }`. Fields of the
//     JSON are only ever added. Tables are printed by a.table.
//   - Sizes are printed by size (IEC: 1.5 GiB) and parsed by sizeFlag (KiB/MiB/GiB, KB/MB/GB; bare
//     K/M/G/T count in 1024s).
//   - ctx ends on SIGINT and SIGTERM; a verb stops its work, cleans up and returns ctx's error.
//   - An error says what was being done to what. Errors that a script would tell apart get a code
//     from internal/exitcode and a hint that says what to do; errors.go gives the codes of the
//     parts' own errors in one table, so that a verb just returns them.
//   - `thaw ws` and `thaw vm` are parents: their verbs are listed in ws.go and vm.go.
//   - No verb calls os.Exit, prints an error itself, or keeps state in a package variable.
//
// # A store and its server
//
// Verbs on a store go through storeAPI (store_api.go): openStore (store_open.go) takes the server
// of a mounted store where there is one (remoteStore, over the socket of internal/control), and
// opens the store itself otherwise (localStore). The server (serve.go) answers with the handlers of
// storeVerbs over a localStore of its own, and with what only a mount can do (serve_verbs.go). So
// there is one implementation of each verb, and errors, exit codes, progress and cancellation are
// the same on both ways.
//
// # Processes
//
// A server never shares its process with anything that uses its mount. Servers in the background,
// the processes of a lab (internal/lab: demo and compare) and the residency prober of a server are this
// program again (selfCommand); a server tells whoever started it through a pipe that it is ready,
// or the error that it ended with (daemon.go).
//
// # Tests
//
// testdata/script holds command lines and what must come of them, in testscript's language with a
// few commands of ours (script_test.go lists them). They run thaw as a process of its own, as a
// user does.
package main
