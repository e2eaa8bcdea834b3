// Package cli runs the real `thaw` for tests: it builds the command once per test binary, runs
// verbs with a time limit, and mounts stores with a server of their own that is gone when the test
// ends, whatever happened.
//
//	func TestMain(m *testing.M) { client.MainIfChild(); os.Exit(cli.Main(m)) }
//
//	cli.OK(t, "import", store, image, "--name", "vm")
//	m := cli.Mount(t, store, "--restore=lazy")
//	c := m.Client(t)
//	c.Open(t, m.Path("vm/memory"), client.Map{Private: true})
//
// What fails must fail for the right reason: Fails asks for the name that the error has in
// `thaw help exit-codes`.
package cli
