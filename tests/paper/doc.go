// Paper runs the evaluation of "Fast Restore of Checkpointed Memory using Working Set Estimation"
// (Zhang, Garthwaite, Baskakov and Barr, VEE 2011) again, with thaw, and prints what it finds
// beside what was published.
//
//	go run ./tests/paper [--quick] [--disk native,hdd] [--workload stream,heap,...] [--out DIR]
//	                     [--thaw BINARY]
//
// # What is measured
//
// Machines of 1 GiB, whose memory is full of pages that are neither zero nor alike, do known work:
//
//	stream      30 frames a second out of 41 MB, as MPlayer did
//	heap        transactions over 192 MiB, one in 65,536 outside of it, as SPECjbb did
//	idle        nearly nothing, as a Linux that has booted and waits
//	random:20   each page of 20 % of memory once a round, in random order; to random:80
//
// Each is saved for each disk, with its access bits scanned before the checkpoint and its accesses
// traced after it, for as long as a restored machine is watched: 30 s on hdd, 10 s on native. It is
// restored from cold by every method of `thaw compare`, which this command runs: eager, lazy,
// access and trace by thaw, raw-eager and raw-lazy from the plain image on the same disk, which is
// what the paper's restores were. Figure 8 is the trace of stream with 1, 5 and 10 % of the set
// lost at random, out of the same checkpoint; the store's layout has not heard of what is lost
// either.
//
// The disk native is what this host has; hdd is simulated in real time (10 ms a seek, 100 MB/s, see
// package index/blob/disk). The published figures are of a disk of 7,200 revolutions, an Opteron
// 2376, VMware Workstation and Linux guests. So it is the ratios that compare, not the seconds, and
// counts of pages only where the set has the same size.
//
//   - recall: pages used that had been prefetched, of all used. precision: pages prefetched that
//     were used. Both over the window.
//   - TTR(1 s, u): when the machine had become responsive for good, from the request on: in no
//     second after it did it stand still for more than 1 - u. The paper uses 80 % for MPlayer, 70 %
//     for SPECjbb.
//   - TTR(100 ms, 95 %): the same, where no more than 5 ms of any 100 ms may be stalled. A second
//     that may stand still for 200 ms hides what a user sees.
//   - longest stall, total stall: from the first instruction to the end of the window. A stall is
//     time in which at least one READ of the image was outstanding.
//   - at N units: how much later than in a warm run the guest had done the first N frames or
//     transactions, from the request on. The warm run is one more restore of the same comparison,
//     with all of memory in the page cache; N is a power of ten that it reaches in its first second
//     (package wss/report).
//   - head start, late pages: where a set comes while the guest runs, how long the open waited for
//     its first part, and how many of its pages came after the guest had wanted them.
//   - back: when the application did its work at its old pace again, from the request on.
//   - scanning: the share of the guest's time that its sweeps took, refaults included.
//   - tracing: the time that the vCPUs spent in the kernel while they were traced, less what they
//     had spent there before in the same time, divided by the first touches. Beside it stands a
//     plain minor fault of this host: the first read of a private mapping whose file lies in the
//     page cache, the median of seven rounds.
//
// The targets are below the tables, each met or short. For stream and heap trace is to be no later
// than lazy and eager by any of these measures; an eager restore has its wait before the guest's first
// instruction, so against it the stalls count with that. One whose runs were not made, or whose TTR
// was not seen within the window in a way that decides it, is unknown.
//
// # What it takes
//
// /dev/kvm, 4 GB of memory, 10 GB in TMPDIR, and some 75 minutes: six minutes a workload on hdd,
// three on native. --quick is a trial of the command: machines of 64 MiB, two workloads with
// small sets, windows of 3 s, lazy, access and trace on native alone. It takes a minute on a
// machine with KVM, and its figures mean little. Without /dev/kvm nothing is done and the exit
// status is 22. (`go run` turns every status but 0 into 1: build the command where it matters.)
//
// --out keeps the JSON of every comparison, the tables (tables.md) and those that README.md has of
// them (readme.md); without it the tables are printed alone. For stream and heap on both disks, with
// figure 8, it takes some 30 minutes:
//
//	go run ./tests/paper --workload stream,heap --out DIR
//
// Locality blocks against blocks in physical order (Halite, USENIX ATC 2013) are compared in
// package tests/perf, TestLocality.
//
// # What disturbs it
//
// Whatever else the host does: the simulated disk keeps its time, but the CPUs decode and push more
// slowly. A host that takes back memory that was not used for a while (DAMON, a balloon) takes
// pages that were prefetched and not yet touched, which are then fetched on demand, in an eager
// restore as well. `thaw compare` touches the memory that a restore takes before it begins, so that
// it is not the first touch of memory of a virtual machine that is measured.
package main
