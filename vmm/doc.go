// Package vmm is thaw's own virtual machine monitor: small guests on KVM, and above all their
// checkpoints. It knows files only: a checkpoint is a directory, on disk or on a mount alike, and
// it takes no part in how the mount gets its bytes.
//
// # Rooms
//
// This package is the machine and its life: it is made, runs, is saved, scanned and traced, and
// ends. Its parts have packages of their own. Each imports only those below it:
//
//	vmm      the machine: run, restore, checkpoint, scan, trace
//	boot     memory and registers at the start of a guest program or a kernel
//	state    the state besides memory: the state file, and the order in which it is read and set
//	vcpu     a virtual CPU on its own thread      device   the devices, and the buses they are on
//	ram      guest memory: files, mapping, what the guest touched and changed
//	meter    counts over time                     trace    KVM's tracepoint of page faults
//	kvm      the system calls of KVM
//
// [Run] and [Restore] do what `thaw vm run` and `thaw vm restore` do: a machine, its API
// socket (package api), its end, and a [Report].
//
// # A machine
//
// [New] makes a [Machine] with a guest program in it: RAM in a memfd, guest page tables with 4 KiB
// pages that map all of it to itself, vCPUs in ring 3. Package guest has the programs. With
// [Config].Kernel it is a Linux kernel, put into memory by package linux, which learns about its
// machine from the tables of package acpi. Restore makes a machine from a checkpoint. Each is paused
// at first. Its methods may be called from any goroutine.
//
// Every machine is of one model (setup.go): interrupt controllers and interval timer in the kernel,
// several vCPUs with the topology and features of state/cpuid.go, and two buses (package device),
// one of ports and one of addresses. A guest program has one device of a few ports (ports.go); a
// kernel has a serial console, a keyboard controller, power and reset registers, virtio-mmio disks
// and random numbers, and a generation ID (hardware.go has their places).
//
// # The path of a restore
//
// README.md follows it through six files: restore.go has all steps in order.
//
// Before the first instruction mincore(2) tells what is resident, which are the prefetched pages;
// and the guest's page tables are read if they come from a mount (guesttables.go, which also says
// why nothing is populated). A page that the guest reads comes from the page cache or, by a fault
// inside KVM_RUN, from the mount; a page that it writes becomes the mapping's own. The report
// counts prefetched, skipped and lazy pages, exact to the page, and says when each vCPU stalled.
//
// # A checkpoint
//
// A directory of files, written beside its place, synced and renamed (checkpoint.go, save.go):
//
//	memory       the image: guest physical address = offset; pages of zeros and the holes of the
//	             address space are holes of the file
//	state        everything else that the machine is (state/file.go has the format byte by byte)
//	info.json    the same for human readers; a restore does not read it
//	working-set  its estimated working set, if one was asked for (sets.go)
//
// The guest is paused while its memory is copied into the page cache, and goes on while the
// copy is written to disk. If anything fails it goes on too, and the directory is removed. A
// differential checkpoint has in `memory` only the pages that changed since its parent
// (state/changed.go).
//
// Afterwards the machine's memory is mapped from the checkpoint, as if it had just been restored
// (ram/remap.go). So the directory must stay as it is; package ram says what that means. If it
// will be changed, save without the remap.
//
// # Working sets around a checkpoint
//
// VEE 2011 (Zhang, Garthwaite, Baskakov, Barr) has two ways to estimate what a machine will touch
// after its restore. Before the checkpoint: the access bits of the guest's page tables are read and
// cleared again and again (scan.go, which is a guest of package wss/scan). The vCPUs are paused for
// each sweep, and made to set the bits again in a way that works on this host's KVM.
//
// After it: the guest goes on and each page that it touches first is recorded, in order, with time
// and vCPU (recording.go). That rests on the remap: no page is mapped when the trace begins, so
// each first touch is a fault, which KVM's tracepoint reports (package trace) and the page table
// keeps. So the guest has to wait for the disk before it goes on, and cannot be saved again
// meanwhile. Without the tracepoint the page table is read at short intervals; and where it does
// not show which pages were touched, before Linux 6.7, each page is served from the checkpoint by
// userfaultfd when it is asked for (ram/pager.go).
//
// # What waits for what
//
// Changes of the machine's state are made one after another, under one lock: pause, resume, checkpoint,
// close. It is held for as long as a vCPU takes to leave the guest. A vCPU that waits for a page
// leaves when the page comes or fails, so its file system decides how long that is. Neither the
// API's status nor the end of a machine waits for that lock: a machine whose pages do not come can
// be asked, and ends with [ram.ErrStuck] after a bounded time. Only a remap in progress makes the
// status wait, for it asks the memory.
//
// # Memory lost
//
// When the mount's server is gone, or a page is damaged, the guest ends with [*ram.LostError]:
// within the time of one failing fault, or when the watcher next asks the mount, four times a
// second (watch.go). It never goes on with zeros. While the mount is dead, any end of a vCPU is
// reported as that error (explain.go). A server that hangs is not dead: the machine waits for it, and
// its status says so.
package vmm
