// Package control is the socket through which commands reach the server of a mount.
//
// The server listens on STORE/control.sock (or in a directory of its own, where the store cannot be
// written to) from before the mount answers until it has ended; MNT/.thaw/socket is a link to it.
// kill -9 leaves the file behind: connecting to it is refused at once, and the next server replaces
// it, which holds the store's lock and so knows that its owner is dead.
//
// # Protocol
//
// Its verbs are short and need the server; commands work on the store themselves.
// HTTP/1.1, one request a connection. POST /v1/VERB with a JSON body; the head of the answer comes
// at once, its body is
//
//	{"result":...}   or   {"error":{"name":"not-found","message":"...","hint":"..."}}
//
// The answer has the ID of the command, too, which the request has in the header "Thaw-Request", or one that
// the server has made: what the server logs of the request has it.
//
// An answer without an end means that the server died. The error's name is that of an exit code
// (package exitcode), so that a command ends with the status and the hint of the server.
// Closing the connection cancels the work: the handler's context ends. A server that does not begin
// or end its answer in time is [ErrSilent].
//
// A unix socket's address holds 107 bytes of path, and stores lie deeper than that: Listen and Dial
// go through /proc/self/fd/N of the directory where the path is too long.
package control
