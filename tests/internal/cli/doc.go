// Package cli runs the real `thaw` for tests: it builds the command once per test binary, runs commands
// with a time limit, and mounts stores, each with its own server, which is gone when the test ends,
// even if it fails.
//
//	func TestMain(m *testing.M) { client.MainIfChild(); os.Exit(cli.Main(m)) }
//
//	cli.OK(t, "import", store, image, "--name", "vm")
//	m := cli.Mount(t, store, "--restore=lazy")
//	c := m.Client(t)
//	c.Open(t, m.Path("vm/memory"), client.Map{Private: true})
//
// A command must fail for the right reason: Fails checks the name of the error in `thaw help exit-codes`.
package cli
