// Package vmm is thaw's own virtual machine monitor: small guests on KVM, and above all their
// checkpoints. It knows files only: a checkpoint is a directory, on disk or on a mount alike, and
// it takes no part in how the mount gets its bytes.
//
// # A machine
//
// [New] makes a [Machine] with a guest program in it: RAM in a memfd, guest page tables with 4 KiB
// pages that map all of it to itself, vCPUs in ring 3. Package guest has the programs. With
// [Config].Kernel it is a Linux kernel, put into memory by package linux, which learns of its
// machine by the tables of package acpi (kernel.go). [Load] makes a Machine from a checkpoint. Each
// is paused at first; Start, Pause, Resume, Checkpoint, Stop, Wait and Close do what they say, from
// any goroutine. [Run] and [Restore] are the whole of `thaw vm run` and `thaw vm restore`: a
// machine, its API socket (package api), its end, and a [Report].
//
// Every machine is of one model (setup.go): interrupt controllers and interval timer in the kernel,
// several vCPUs with the topology and features of cpuid.go, and two buses (package device), one of
// ports and one of addresses, on which its devices are. A guest program has one device of a few
// ports (ports.go); a kernel has a serial console, a keyboard controller, power and reset
// registers, virtio-mmio disks and random numbers, and a generation ID (hardware.go has their
// places).
//
// # Threads
//
// Each vCPU has a goroutine locked to a thread (vcpu.go). It is in the guest, or it is parked: then
// it does jobs, and every ioctl about its state is such a job. To park it one sets what is wanted,
// then immediate_exit, then sends a signal; the vCPU completes a half-done port access by one more
// KVM_RUN which never enters the guest, and parks. So state that is read is whole; and reading it
// while the vCPU runs is refused with [ErrRunning].
//
// # State
//
// What a machine is besides its memory is read and written in one order each, and the order is half
// of it: saved.go has that of the machine (devices, vCPUs, what they share), vcpu_state.go that of
// a vCPU, vm_state.go that of interrupt controllers and clocks, msrs.go which model specific
// registers are part of it. Each step says what breaks without it. sections.go and statefile.go
// make a file of it, whose format and versions are described there; [Inspect] lays a file open and
// [Diff] compares two. Before a restore the host is compared with what the guest was told of its
// CPU (compat.go).
//
// # A checkpoint
//
// A directory of files, written beside its place, synced and renamed (checkpoint.go, save.go):
//
//	memory       the image: guest physical address = offset; pages of zeros and the holes of the
//	             address space are holes of the file
//	state        everything else that the machine is (statefile.go has the format byte by byte)
//	info.json    the same for human readers; restoring does not look at it
//	working-set  what was estimated of its working set, if that was asked for (sets.go)
//
// The guest stands still while its memory is copied into the page cache, and goes on while that
// gets to disk. If anything fails it goes on too, and nothing is left of the directory.
//
// A differential checkpoint has in `memory` only the pages that changed since its parent; the
// section CHANGED of `state` lists them, and names the parent and what it must be (changed.go).
// [OpenImage] puts the image together again (image.go).
//
// # What the memory is mapped from
//
// After a checkpoint the machine's memory is mapped from it, privately, as if it had just been
// restored (remap.go). What the guest does not change is page cache of that file, in memory once
// however many machines are mapped from it, and to be dropped and read again when the host is
// short; only what it changes is the process's own. And it is known to the page what it touches and
// changes from then on, which is what the next differential checkpoint consists of.
//
// So the directory has to stay as it is, as the one has to that a machine was restored from. To
// remove or rename it does no harm to the machine, which has the file open; the space is given back
// when it ends. But a differential checkpoint that is made afterwards would have no parent, and is
// refused. To write into the file, or to cut it off, destroys the guest: pages that it has not
// changed are the file's. That also goes for programs that replace a file by writing into it; those
// that rename a new one over it do no harm. And if the file's disk or server fails, the guest's
// memory is lost. Who cannot promise that much saves with [CheckpointOptions].NoRemap.
//
// # Working sets around a checkpoint
//
// VEE 2011 (Zhang, Garthwaite, Baskakov, Barr) has two ways to find out what a machine will touch
// after its restore. Before the checkpoint: the access bits of the guest's page tables are read and
// cleared again and again (scan.go, which is a guest of package wss/scan). The vCPUs are paused for
// each sweep, and made to set the bits again by whatever works on this host's KVM. Where a guest's
// tables tell nothing the host's idle page tracking is asked, if it has that.
//
// After it: the guest goes on and each page that it touches first is recorded, in order, with time
// and vCPU (recording.go). That rests on the remap: no page is mapped when the trace begins, so each
// first touch is a fault, which KVM's tracepoint tells of (package trace) and the page table keeps.
// So the guest has to wait for the disk before it goes on, and cannot be saved again meanwhile
// ([ErrTracing]). Without the tracepoint the page table is read at short intervals; and where it does
// not tell which pages were touched, before Linux 6.7, each page is served from the checkpoint by
// userfaultfd when it is asked for (missing.go).
//
// # The path of a restore
//
// [Load] reads and checks `state`, opens `memory` (on a mount of thaw this returns once the working
// set is in the page cache), maps it MAP_PRIVATE with MADV_RANDOM, arms the tracker, makes the VM,
// sets the state of vCPUs, chips and devices, asks mincore(2) what is resident, which are the
// prefetched pages, and reads the guest's page tables if they come from a mount (guesttables.go,
// which also says why nothing is populated). Then the guest runs. A page that it reads comes from
// the page cache or, by a fault inside KVM_RUN, from the mount; a page that it writes becomes the
// mapping's own. After the window the tracker tells which pages were touched and which changed
// (tracker.go), and the report has prefetched, skipped and lazy, exact to the page, and when each
// vCPU stalled (stall.go).
//
// Another checkpoint of a restored machine takes changed pages from the mapping and all others from
// the files that it was restored from; no page gets touched by that.
//
// # Guest memory and Go
//
// No Go code touches guest memory through its mapping; see memory.go for why.
//
// # Memory lost
//
// When the mount's server is gone, or a page is damaged, the guest ends with [*MemoryLostError]:
// within the time of one failing fault, or when the watcher next asks the mount, four times a
// second (watch.go). It never goes on with zeros. Whatever a vCPU dies of while the mount is dead
// is that error (explain.go). A server that hangs is not dead: the machine waits for it, and says
// so.
package vmm
