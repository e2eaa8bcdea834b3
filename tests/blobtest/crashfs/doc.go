// Package crashfs is a file system in memory, for the driver of package blob, that records which data
// is durable. A test can end a process at any step, by a kill (the next process finds all that was
// done) or by a power failure (the next process finds what was synced, and a random part of the rest).
//
// What is not durable:
//
//   - The bytes of a file written after its last Sync. At a power cut the file keeps some length
//     between the synced one and the full one, and any sector of the unsynced part may be zeros or
//     garbage.
//   - Changes to the names of a directory after its last SyncDir: files made, moved and removed,
//     directories made. At a power cut any of these changes may be undone, even if a later one is not;
//     a move is either complete or undone.
//
// The step at which a process dies happens not at all, partly (a write, a Sync), or completely, and
// never returns. This is harsher than real file systems, and is what POSIX allows.
package crashfs
