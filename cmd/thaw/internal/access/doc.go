// Package access is how a command reaches a store, and the server of its mount.
//
// # A store
//
// A command that only reads a store opens it by [Read]: without a lock, whether it is mounted
// or not, writable or not. One that changes it opens it by [Write], one at a time: another one
// is waited for. The index is then kept by a process of its own (the keeper, see package index), so
// that a crash of the database is an error of the command. Afterwards [Follow] asks the server of the
// mount, where there is one, to show the change; [Heed] only asks whether it answers.
//
// # A mount
//
// [Resolve] finds the mount that a path is on by the table of mounts and asks its server for one
// link, the control socket's. [Server] finds the server of a store by the lock that it holds.
//
// # Bounded waiting
//
// A process that uses a path on a mount whose server hangs would hang, too. So every path that a command is
// given goes through [Answering] before it is used, and what else may hang in the kernel through
// [Bounded]; package control bounds what is asked over the socket.
package access
