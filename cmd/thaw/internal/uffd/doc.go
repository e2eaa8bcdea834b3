// Package uffd serves the memory of a checkpoint to a VMM that wants its pages through userfaultfd and not
// from a file: Firecracker with a memory backend of type Uffd.
//
// # The handshake
//
// The VMM maps anonymous memory, registers it with a userfaultfd, connects to a Unix socket on which the
// pager listens, and sends one message: a JSON array of its memory's regions, and the userfaultfd as
// SCM_RIGHTS. Nothing else goes over the socket, and nothing is answered.
//
//	[{"base_host_virt_addr": 140002604220416, "size": 268435456, "offset": 0, "page_size": 4096}, ...]
//
// offset is where the region's bytes are in the image. page_size is in bytes; older VMMs call it
// page_size_kib, and mean bytes too; the oldest have neither, and mean 4096. Other fields are ignored. The
// message may be longer than what one read brings: it is read until it is one JSON value.
//
// The regions must be exactly the image: a VM with more memory, or less, belongs to another checkpoint.
// They must not overlap, must be aligned, and all have pages of 4 KiB, or all of 2 MiB. Then the first
// and the last page of each region are installed: which fails if the VMM has no such memory, has not
// registered it, or has told the wrong size of pages.
//
// # Who depends on whom
//
// A thread that touches a page which is not there waits until somebody installs it, for ever if need be: the
// VMM has a copy of the descriptor, so that the kernel does not end the wait when the pager dies. So a VM
// that has handed over its userfaultfd, and cannot be served, is killed: when its handshake is refused, when
// a page cannot be read, when the pager is told to end, and when the pager dies. The last is the work of the
// guard (guard.go), a second process that has nothing but a pidfd of the VM and a socket to the pager, whose
// end without a farewell it takes as the death of the pager. A guard that dies is replaced. The VM is known
// by the credentials of its connection (SO_PEERPIDFD, SO_PEERCRED). Who connects without a userfaultfd
// depends on nobody, and is left alone. A farewell is only said where that is sure: not in a panic.
//
// # A fault
//
// One goroutine reads messages, several answer them (pager.go). An answer reads the page into a buffer
// of its goroutine, and copies it into the VM's memory by UFFDIO_COPY, which wakes whoever waits for the
// page; zeros are mapped by UFFDIO_ZEROPAGE and take no memory, with pages of 4 KiB. Then the pages that
// are stored beside it are copied along, if nobody waits and the VM uses such pages (near.go). The
// working set is installed meanwhile, in the order in which the machine touched it when it was recorded
// (set.go); it makes way for faults between any sixteen pages.
//
// # Memory that the VM gives back
//
// A balloon gives memory back by MADV_DONTNEED. The page is missing again afterwards, and must then be zeros:
// never what the image has there. The kernel tells by the message REMOVE, and the VM's thread waits until it
// is read; before that every UFFDIO_COPY fails with EAGAIN. So:
//
//   - The pager keeps one bit for each page (memory.go), set when the page was installed or removed. A page
//     whose bit is set is answered with zeros. If it is there in truth, because two threads waited for it,
//     that fails with EEXIST and changes nothing. So what was installed once never comes from the image
//     again, also where the VMM's userfaultfd does not tell of removals.
//   - The bit is looked at, the page installed and the bit set while no message is read: each install holds
//     a lock for reading which the reader of messages holds for writing. Otherwise a page could be copied
//     in after its removal was read and before it was noted.
//   - The reader waits for one call of those who install at most, never for their reading, and has an
//     unbounded queue: an install that fails with EAGAIN tries again until the reader has read what is
//     pending. It reads before the first page is installed, for the VM may be running already.
//   - EEXIST always wakes, and so does every install: UFFDIO_COPY_MODE_DONTWAKE would save little where
//     nobody waits, and a thread that waits would do so longer.
//   - The field copy of UFFDIO_COPY is progress only if it is above 0. Otherwise it is nothing, or a negative
//     errno, depending on the kernel (6.15 changed it); the error is what the ioctl returns.
//
// A fault that is not for a missing page (write protection, minor faults) ends the VM: its page is there, and
// the thread would fault on it again as often as it is woken.
//
// A VM whose userfaultfd tells of forks or of memory that moves is refused: its memory would be in two
// places. That memory was unmapped is a removal.
//
// # Bytes that cannot be read
//
// A page that cannot be read when the VM waits for it ends the VM, and the error names the page. When it is
// only brought along, or part of the working set, it is left out.
package uffd
