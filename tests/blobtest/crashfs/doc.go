// Package crashfs is a file system in memory that remembers what was made durable, for the driver
// package blob to run on. A process on it can be made to die at any step, and then either be killed
// (the next one finds what it had done) or lose its power: then the next one finds what was
// synced, and of the rest a random part.
//
// What is not durable:
//
//   - The bytes of a file behind its last Sync. At a power cut the file keeps some length between
//     what was synced and all, and in what it keeps any sector may be zeros or rubbish.
//   - What was done to the names of a directory behind its last SyncDir: files made, moved and
//     removed, directories made. At a power cut any of these steps may be undone, also when a later
//     one is not; a move is done whole or not at all.
//
// The step at which a process dies happens not at all, in part (a write, a Sync), or whole, and its
// answer never comes. This is harsher than the file systems that there are, and what POSIX allows.
package crashfs
