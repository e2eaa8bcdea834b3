// Package control is the socket through which commands reach the server that owns a store.
//
// # Who owns a store
//
// One process at a time has a store open; while it is mounted, that is the server of the mount. The
// server listens on STORE/control.sock from before the mount answers until just before it gives the
// store back, and whoever holds the store's lock may remove a socket that it finds there: its
// owner is dead (kill -9 leaves the file behind; connecting to it is refused at once). So a command
// dials first, opens the store itself where nobody answers, and tries again for a moment where the
// store is locked and yet nobody answers, because then a server is just starting or stopping.
//
// # What goes over it
//
// HTTP/1.1, one request a connection. POST /v1/VERB with a JSON body; the answer is one JSON value
// a line, any number of
//
//	{"progress":{"stage":"...","unit":"bytes","done":N,"total":N}}
//
// and at the end exactly one of
//
//	{"result":...}
//	{"error":{"name":"not-found","message":"...","hint":"..."}}
//
// An answer without an end means that the server died. The error's name is that of an exit code
// (package exitcode), so that a command ends with the same status, the same message and the same
// advice whether it did the work itself or the server did. Closing the connection cancels the work:
// the handler's context ends.
//
// A unix socket's address holds 107 bytes of path, and stores lie deeper than that: Listen and Dial
// go through /proc/self/fd/N of the directory where the path is too long.
package control
