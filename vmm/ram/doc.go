// Package ram is the memory of a guest: the files that contain its pages, the mapping that KVM uses,
// and the record of which pages the guest has touched and changed. It does not depend on KVM, vCPUs or
// the rest of a checkpoint.
//
// # Image, pieces, mapping
//
// An [Image] is the memory of a checkpoint: guest physical address = offset, holes of the address space
// included. It is one file or, for a differential checkpoint, several: each run of pages (a piece)
// belongs to one of them. [Map] maps the pieces into one private mapping and returns a [Memory]. [New]
// makes zeroed memory, a memfd that is mapped shared.
//
// A [Memory] is in one of three states:
//
//	started    a memfd, mapped shared; nothing is tracked
//	mapped     from a checkpoint, mapped privately; what is touched and changed is known to the page
//	served     the same, but on a kernel before Linux 6.7 while it is traced: the files are not
//	           mapped, a pager copies each page in when it is first touched
//
// A checkpoint changes the first state to the second, and renews the second: [Memory.Remap] maps the
// file that was just written. Pages that the guest does not change are page cache of that file: they
// are in memory only once for all machines that map it, and the host can evict them and read them
// again. Only changed pages are private to the process.
//
// # Invariants
//
//   - The guest sees the same bytes before and after each operation of this package. If an operation
//     fails halfway, the parts that were mapped again have the same bytes as before.
//   - A page that cannot be read is an error ([LostError]) for the code that needs it: never zeros, never
//     old bytes.
//   - Copying memory for a checkpoint, counting its pages and asking which are resident touch no page
//     that the guest has not touched.
//   - The contents of the files behind a mapping must not change. They may be removed or renamed: they
//     are open, and their space is freed when the machine ends. But writing into them, or truncating
//     them, destroys the guest, because it reads its unchanged pages from them. A program that replaces
//     a file by writing into it does that, too; one that renames a new file over it does not. If the
//     file's disk or server fails, the memory is lost.
//
// # Locks and waiting
//
// No Go code touches the mapping. A page that is not resident may take long to load, or never load. A
// goroutine that waits for a page in user mode blocks the garbage collector of the whole process, and a
// page that cannot be read kills the process with SIGBUS. So every access is a system call (pread,
// process_vm_readv, KVM_RUN): the runtime knows that it waits, and a failure is EFAULT. A process that
// serves a mount must not even do that: see package fs.
//
// A read of memory holds the read lock of the [Memory] while it waits for a page. Remap, Mark and
// StopPager take the write lock, so they wait for such reads, and the guest is paused meanwhile. Close
// has a time limit: it fails with [ErrStuck]. All other code may wait for the pager's goroutine. So
// that goroutine takes no lock of the memory, reads only from the files, and ends last.
package ram
