// Package cache keeps what was read of blobs on a disk of this host.
//
// A [Cache] is a directory. It may be used by several processes at once, and by several stores. It is put
// around a store whose objects say what their bytes are ([blob.Tagged]): [Cache.Wrap]. What a reader asks for
// and is not there is fetched from that store, with what lies around it ([Options.Fetch]); only then it is
// written to the cache, by another goroutine, and not at all while the disk is too slow for that. An error of
// the disk costs the cached bytes and never a read.
//
// # Files
//
// Each blob has one sparse file, whose name is the hash of the store, the blob's name, tag and size:
//
//	0      header: magic, block size, the blob's size, the hash, CRC-32C of all that
//	4096   slots: when each MiB of the blob was last used, in minutes since 2020 (4 bytes)
//	...    table: 8 bytes for each block of 16 KiB, 0 if it is not here, else its check
//	...    the blob's bytes, each part on a multiple of 4096
//
// The check of a block is the CRC-32C of the hash in the file's name, the block's number and its bytes. So a
// block counts only if it is the right block of the right blob. Nothing is ever synced, and no process locks
// out another one that writes: whatever order writes reach the disk in, whoever clears a block while another
// one reads it, after kill -9 and power cuts, a block whose check is wrong is one that is not here.
//
// # What goes
//
// When the files take more than [Options.Size], or their file system has less free than [Options.MinFree],
// the slots that were not used for longest go, by punching holes, until a sixteenth of the limit is free
// again. Files of pinned objects ([Object.Pin]) stay: a lock in the file says so, which the kernel lets go
// when a process dies. If that leaves too much, nothing more is cached.
package cache
