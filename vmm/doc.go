// Package vmm is thaw's own virtual machine monitor (VMM): small guests on KVM, and above all their
// checkpoints. It works on files only. A checkpoint is a directory, on a disk or on a thaw mount; the
// package does not know the difference, and has no part in serving the mount.
//
// # Rooms
//
// This package has the machine and its life cycle: a machine is made, runs, is saved, scanned and
// traced, and ends. Its parts are packages of their own. Each imports only packages below it in this
// list:
//
//	vmm      the machine: run, restore, checkpoint, scan, trace
//	boot     memory and registers at the start of a guest program or a kernel
//	state    the state besides memory: the state file, and the order in which it is read and set
//	vcpu     a virtual CPU on its own thread      device   the devices, and the buses they are on
//	ram      guest memory: files, mapping, what the guest touched and changed
//	meter    counts over time                     trace    KVM's tracepoint of page faults
//	kvm      the system calls of KVM
//
// [Run] and [Restore] are the commands `thaw vm run` and `thaw vm restore`: they make a machine, serve
// its API socket (package api), wait for its end, and return a [Report].
//
// # A machine
//
// [New] makes a [Machine] with a guest program in it: RAM in a memfd, guest page tables with 4 KiB
// pages that map all of it to itself, vCPUs in ring 3. Package guest has the programs. With
// [Config].Kernel the guest is a Linux kernel instead: package linux loads it, and it finds its devices
// by the ACPI tables of package acpi. Restore makes a machine from a checkpoint. A new machine is
// paused. Its methods may be called from any goroutine.
//
// There is one model of machine (setup.go): interrupt controllers and interval timer emulated by KVM,
// one or more vCPUs with the topology and features of state/cpuid.go, and two buses (package device),
// one for I/O ports and one for memory-mapped devices. A guest program has one device with a few ports
// (ports.go). A kernel has a serial console, a keyboard controller, power and reset registers,
// virtio-mmio disks and random numbers, and a generation ID (hardware.go has their addresses).
//
// # The path of a restore
//
// README.md follows a restore through six files; restore.go has all steps in order.
//
// With Config.Count the resident pages are counted before the first instruction, by cachestat(2) or
// mincore(2): these are the prefetched pages. If the memory lies on a mount, the guest's page tables are
// read, too (guesttables.go, which also says why no page is populated). A page that the guest reads comes
// from the page cache or, by a fault inside KVM_RUN, from the mount. A page that it writes becomes a
// private copy. The report counts prefetched, skipped and lazy pages exactly, and says when each vCPU
// stalled.
//
// # A checkpoint
//
// A checkpoint is a directory. It is written under a temporary name, synced, and renamed
// (checkpoint.go, save.go):
//
//	memory       the image: guest physical address = offset; pages of zeros and the holes of the
//	             address space are holes of the file
//	state        everything else that the machine is (state/file.go has the format byte by byte)
//	info.json    the same for human readers; a restore does not read it
//	working-set  its estimated working set, if one was asked for (sets.go)
//
// The guest is paused while its memory is copied into the page cache, and runs again while the copy is
// written to disk. If a step fails, the guest continues as well, and the directory is removed. A
// differential checkpoint has in `memory` only the pages that changed since its parent
// (state/changed.go).
//
// Afterwards the machine's memory is mapped from the checkpoint, as if it had just been restored
// (ram/remap.go). So the files must not be changed as long as the machine runs; package ram has the
// details. A checkpoint that will be changed must be made without the remap (no_remap).
//
// # Working sets around a checkpoint
//
// VEE 2011 (Zhang, Garthwaite, Baskakov, Barr) has two ways to estimate which pages a machine will
// touch after its restore. The first works before the checkpoint: the access bits of the guest's page
// tables are read and cleared in repeated sweeps (scan.go implements the guest of package wss/scan).
// The vCPUs are paused for each sweep, and their cached translations are flushed in a way that works on
// this host's KVM, so that they set the bits again.
//
// The second works after the checkpoint: the guest runs on, and the first touch of each page is
// recorded in order, with its time and vCPU (recording.go). It depends on the remap: no page is mapped
// when the trace begins, so each first touch is a fault, which KVM's tracepoint reports (package trace)
// and which leaves an entry in the page table. Therefore the guest stays paused until the checkpoint is
// on disk, and cannot be saved again before the trace ends. Without the tracepoint the page table is
// read at short intervals. Before Linux 6.7, where the page table does not show exactly which pages
// were touched, a userfaultfd pager copies each page from the checkpoint when it is first touched
// (ram/pager.go).
//
// # Locks and waiting
//
// Pause, resume, checkpoint and close run one after another, under one lock. They hold it until every
// vCPU has left the guest. A vCPU that waits for a page leaves when the page arrives or its read fails,
// so the wait depends on the file system. Neither the API's status nor the end of a machine needs that
// lock: a machine whose file system hangs still answers a status request, and it ends with
// [ram.ErrStuck] after a bounded time. The status waits for a remap in progress, because both use the
// memory's own lock.
//
// # Memory lost
//
// When the mount's server is gone, or a page is damaged, the machine ends with [*ram.LostError]: at the
// first fault that fails, or when the watcher next asks the mount, four times a second (watch.go). It
// never continues with zeros. While the mount is dead, any end of a vCPU is reported as that error
// (explain.go). A server that hangs is not dead: the machine waits for it, and its status says so.
package vmm
