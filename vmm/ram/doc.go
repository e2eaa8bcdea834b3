// Package ram is the memory of a guest: the files that have its pages, the mapping that KVM uses,
// and what the guest has touched and changed in it. It knows nothing of KVM, of vCPUs or of what
// else is in a checkpoint.
//
// # Image, pieces, mapping
//
// An [Image] is the memory of a checkpoint: guest physical address = offset, holes of the address
// space included. It is one file or, for a differential checkpoint, several: each run of pages (a
// piece) belongs to one of them. [Map] maps the pieces side by side into one private mapping, and
// makes a [Memory] of it. [New] makes zeroed memory, a memfd that is mapped shared.
//
// A [Memory] is in one of three conditions:
//
//	started    a memfd, mapped shared; nothing is tracked
//	mapped     from a checkpoint, mapped privately; what is touched and changed is known to the page
//	served     the same, but on a kernel before Linux 6.7 while it is traced: the files are not
//	           mapped, a pager copies each page in when it is first touched
//
// A checkpoint turns the first into the second, and renews the second: [Memory.Remap] puts the file
// that was just written behind the mapping. What the guest does not change is page cache of that
// file, in memory once however many machines are mapped from it, and dropped and read again when
// the host is short; only what the guest changes is the process's own.
//
// # Invariants
//
//   - The guest sees the same bytes before and after each operation of this package. Where an
//     operation fails in the middle, the parts that are mapped again have the same bytes as those
//     that are not.
//   - A page that cannot be read is an error ([LostError]) for the code that needs it: never zeros, never
//     old bytes.
//   - To copy memory for a checkpoint, to count its pages and to ask what is resident touches no
//     page that the guest has not touched.
//   - The files behind a mapping have to stay as they are. To remove or rename them does no harm:
//     they are open, and the space is given back when the machine ends. To write into them, or to
//     cut them off, destroys the guest, for pages that it has not changed are the file's. That also
//     goes for programs that replace a file by writing into it; those that rename a new one over it
//     do no harm. If the file's disk or server fails, the memory is lost.
//
// # What may wait for what
//
// No Go code touches the mapping. A page that is not there yet may take a while to come, or may
// never come. A goroutine that waits for a page in user mode holds up the garbage collector of the
// whole process, and a page that cannot be read kills the process by SIGBUS. So every access goes
// through the kernel (pread, process_vm_readv, KVM_RUN), where waiting is a system call and failure
// is EFAULT. In a process that serves a mount itself not even this is allowed: see package fs.
//
// A read of memory holds the lock of the [Memory] for reading while it waits for a page; Remap,
// Mark and StopPager take it for writing, so they wait for such reads; the guest has to be paused
// meanwhile. Close does not wait for ever: it gives up with [ErrStuck]. Everybody may wait for the
// pager's goroutine. So it takes no lock of the memory, reads from the files alone, and ends last.
package ram
