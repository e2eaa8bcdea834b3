// Package server is the process of `thaw mount`: a store that is mounted, and the verbs of its
// control socket.
//
// [Start] builds it from the store up, [Server.Run] serves until the mount ends and takes everything
// down from the mount down: the store is opened for reading and locked, the control socket listens,
// the residency prober starts, the file system is mounted, the socket answers, metrics are served.
//
// The server only reads the store. Commands change it themselves and then ask for a refresh, so that
// no command can end the server by an error. What only the server can do is the verbs
// ([control.Mount]): who uses the mount, the record of its reads, letting go of an image, unmounting.
//
// What writes to the store beside it is a process of its own, the repacker, which runs when nothing was
// asked for some time and there may be something to do. The server tells it over its standard input to
// wait while machines read, and lists the packs again when it says that one is done. It ends with the
// server: the end of its input ends it.
//
// With --learn the server watches restores, and keeps what they teach beside the store's lessons. A working
// set that has proved itself is made that of its checkpoint by a process of its own, too, the learner.
//
// # The next server
//
// A server leaves its mount to another one: when it dies, to the one that its holder starts (a process of
// package holder, or systemd), and when it is upgraded, to the program that it runs in its own process. They
// get /dev/fuse and the ledger of the file system, the lock of the store, which so is held without a gap, and
// the listeners, whose clients wait (process.Files). A server that was given a mount serves it first; its
// prober, its control socket and all else come after that.
//
// # The end
//
// A mount ends by umount(8), by the verb, or by SIGTERM or SIGINT. In the last case a mount in use is
// tried again for a moment, then detached: it leaves the directory tree, and is served until all open
// files are closed. A second signal cuts it off from what uses it. SIGUSR2 ends the server and leaves
// the mount
// to the next one, if somebody holds it.
package server
