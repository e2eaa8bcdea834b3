// Package vmm is thaw's own virtual machine monitor: small guests on KVM, and above all their
// checkpoints. It knows files only: a checkpoint is a directory, on disk or on a mount alike, and
// it takes no part in how the mount gets its bytes.
//
// # A machine
//
// [New] makes a [Machine] with a guest program in it: RAM in a memfd, guest page tables with 4 KiB
// pages that map all of it to itself, one vCPU in ring 3, one device of a few ports (ports.go).
// Package guest has the programs. [Load] makes a Machine from a checkpoint. Either is paused at
// first; Start, Pause, Resume, Checkpoint, Stop, Wait and Close do what they say, from any
// goroutine. [Run] and [Restore] are the whole of `thaw vm run` and `thaw vm restore`: a machine,
// its API socket (package api), its end, and a [Report].
//
// # Threads
//
// Each vCPU has a goroutine locked to a thread (vcpu.go). It is in the guest, or it is parked: then
// it does jobs, and every ioctl about its state is such a job. To park it one sets what is wanted,
// then immediate_exit, then sends a signal; the vCPU completes a half-done port access by one more
// KVM_RUN which never enters the guest, and parks. So state that is read is whole; and reading it
// while the vCPU runs is refused with [ErrRunning].
//
// # A checkpoint
//
// A directory of three files, written beside its place, synced and renamed (checkpoint.go):
//
//	memory     the image: guest physical address = offset; pages of zeros and the holes of the
//	           address space are holes of the file
//	state      everything else that the machine is (statefile.go has the format byte by byte)
//	info.json  the same for human readers; restoring does not look at it
//
// The guest stands still meanwhile and goes on afterwards, whether or not writing worked.
//
// # The path of a restore
//
// [Load] reads and checks `state`, opens `memory` (on a mount of thaw this returns once the working
// set is in the page cache), maps it MAP_PRIVATE with MADV_RANDOM, arms the tracker, makes the VM,
// sets the vCPU's state, and asks mincore(2) what is resident: the prefetched pages. Then the guest
// runs. A page that it reads comes from the page cache or, by a fault inside KVM_RUN, from the
// mount; a page that it writes becomes the mapping's own. After the window the tracker tells which
// pages were touched and which changed (tracker.go), and the report has prefetched, skipped and
// lazy, exact to the page.
//
// Another checkpoint of a restored machine takes changed pages from the mapping and all others from
// the file that it was restored from; no page gets touched by that.
//
// # Guest memory and Go
//
// No Go code touches guest memory through its mapping; see memory.go for why.
//
// # Memory lost
//
// When the mount's server is gone, or a page is damaged, the guest ends with [*MemoryLostError]:
// within the time of one failing fault, or when the watcher next asks the mount (watch.go). It
// never goes on with zeros.
package vmm
