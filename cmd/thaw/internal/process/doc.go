// Package process starts thaw again as another process, and makes a process fit for being depended
// upon.
//
// A server never shares its process with anything that uses its mount: a program that waits for a
// page that it must bring itself waits for ever. So servers in the background, the helpers of a
// server and of a store, and the machines of a lab are this program again ([Self]).
//
// # Becoming a server
//
// The child gets a session of its own, a log file for its output, and in the variable THAW_READY_FD
// the number of a pipe on which it says, in one JSON line, that it is ready or why it could not be
// ([Ready]). The parent waits for that line ([StartServer]), so that `thaw mount --daemon` ends with
// the exit status and the message of what the server did.
//
// # Leaving a mount
//
// What one server leaves to the next are open files, by name ([Files]); a [Holder] keeps them when a server
// dies.
//
// # Staying one
//
// Machines depend on a server. [Lasting] ignores the signals that would end it without need, writes
// its log in a goroutine so that nothing ever waits for a log, and asks the kernel to spare it when
// memory runs out.
package process
