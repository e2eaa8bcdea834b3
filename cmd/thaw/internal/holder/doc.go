// Package holder is the process that keeps a mount when its server dies.
//
// The kernel ends a FUSE connection when nobody has its /dev/fuse open any more. A holder has it open beside
// the server, and with it the server's ledger, its lock and its sockets. It starts the server, and when the
// server has died without having ended the mount, another one, which takes over (fs.TakeOver). The machines
// that run from the mount wait as long as that takes. To its server it is what systemd is to a service of
// Type=notify with a store of descriptors, and it is told the same (process.Holder).
//
// It never touches the mount, so nothing that it does can wait for the server; it opens no store, and does
// nothing but wait.
//
// # Never a hang
//
// As long as the holder has /dev/fuse open, whoever asks for a page waits for a server. So there is a bound:
//
//   - 10 s without a server that serves, whether servers die at their start or do not come to it;
//   - 300 deaths in a minute, as when a request kills each server that reads it.
//
// Then the holder cuts the connection, through the control file system of FUSE, and ends. What is not in the
// page cache is an error from that moment on. A server counts as one that served if it lived for a second
// after it was ready, or if somebody killed it (SIGKILL) when it was.
//
// On a kernel that does not send requests again (before Linux 6.9) servers give their holder nothing: the
// connection ends with them.
//
// # A server that cannot die
//
// A thread of a server that was killed may have to wait for a page whose READ the same server has taken and
// will not answer. The process is not gone then, and cannot be waited for. The holder therefore goes by the
// end of the main thread (a pidfd with PIDFD_THREAD), which does nothing in which it could wait so. The next
// server has the READ sent again, and answers it, and the thread ends.
package holder
