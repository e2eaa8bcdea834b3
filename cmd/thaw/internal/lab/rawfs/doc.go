// Package rawfs serves what thaw is compared with: a checkpoint directory as it lies on a disk, its
// memory a plain file. [Store] shows one to package fs, so that it is served, and the waits of its
// readers are measured, exactly as with thaw's own images; nothing else of thaw is in between. The
// memory is read from a simulated disk (package disk) if one is given. [Server] is the mount.
//
// # What makes the comparison a fair one
//
//   - The file's data lies on the disk in one piece, in the order of its offsets; holes take no
//     place there and no time. No file system's own reads are charged.
//   - The kernel reads ahead and around faults as it does for a file of a local disk: the mount has
//     to be made with fs.Options.ReadAhead = ReadAhead. Then a fault brings up to 128 KiB,
//     unless the mapping has MADV_RANDOM (thaw vm restore --read-around takes that away).
//   - Read eagerly, the file is read once from its beginning to its end, in pieces of 1 MiB, as
//     many at once as the disk serves better than one.
//   - Pages stay in the page cache once they are there: nothing is read twice.
//
// What the server calls a stall is a READ that is outstanding. With read-ahead some READs are ones
// that nobody waits for yet; where that matters, ask the VMM how long its processors waited.
package rawfs
