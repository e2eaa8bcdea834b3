// Package client is a process that maps and reads files of a mount on behalf of a test.
//
// The test process must never fault on a mount itself: if the server is gone or slow, a Go program that
// touches such a page cannot be preempted, so its garbage collector, and with it the whole test, is
// blocked. So the test binary is started again as a client. It reads requests from its standard input,
// one on each line (see Request), and answers each with one line (Response). The client keeps files
// open and mapped until it is told to close them: a test can map a file, kill the server, and then let
// the client touch the mapping.
//
// A page that cannot be read is reported, not fatal: SIGBUS becomes an entry of Response.Lost.
//
//	func TestMain(m *testing.M) { client.MainIfChild(); os.Exit(m.Run()) }
//
//	c := client.Start(t, nil)
//	c.Open(t, path, client.Map{Private: true, Random: true})
//	c.Right(t, client.Request{Count: pages, Order: "random", Source: image})
package client
