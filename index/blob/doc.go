// Package blob is where a store keeps its packs: named, write-once byte strings.
//
// # The contract
//
// A blob is created in one step. [Store.Create] returns a [Writer] that nobody else sees;
// [Writer.Commit] makes its bytes durable and visible under the name in one step, and [Writer.Abort]
// forgets them. A name that exists is never overwritten (Commit returns [ErrExists]), and the bytes
// under a name never change, so that an [Object] may be read by many goroutines without a lock and its
// content cached for ever. What a process leaves that dies between Create and Commit is not listed and
// cannot be opened, and the next process removes it.
//
// Every object store has these operations: PUT if absent, ranged GET, LIST,
// DELETE. Nothing here needs a rename, a lock, an append or a partial update from the caller.
//
// # Drivers
//
//   - [Dir] keeps each blob as a file of the same name under a directory. Create writes to a
//     temporary file beside it, Commit is fsync, a rename that refuses an existing name, and fsync
//     of the directory. [OpenDirReadOnly] reads one while another process may write.
//     Of its open Objects so many have a descriptor as are half of what the process may have, 4,096 at
//     most; those that were not read lately do without. A mapping keeps the file of such a one also if its
//     name is removed, and takes nothing but addresses. When it is read again, its name is opened; if that
//     is gone, or another file by now, the bytes are copied out of the mapping. So there is no error for
//     want of descriptors, and beyond the bound there are only those of reads in progress.
//   - package seal decorates another one and encrypts names and contents.
//   - package disk decorates another one and makes reads as slow as on a simulated disk.
//
// All of them pass the suite in package tests/blobtest, and so must every new one. Beside it are a
// driver in memory, one that makes chosen operations fail, and a file system that loses power.
//
// # Optional abilities
//
// Some drivers can do more. [Drop] asks for it and does nothing where it is missing: a driver over a
// network has no host page cache to drop. [MediumOf] asks what reads cost, so that readers can choose
// between many small and few large ones, one at a time or many at once.
package blob
