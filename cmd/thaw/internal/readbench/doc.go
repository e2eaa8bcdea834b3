// Package readbench reads a file in the patterns of fio and says how long each read took. It is
// what `thaw bench` runs against the memory of a checkpoint on a mount.
//
// # Patterns
//
// A job goes through the blocks (bs bytes each) of its part of the file:
//
//   - read: one after the other;
//   - randread: in a random order that has each block once ([permutation]), as fio does with its
//     map of random blocks, but without the map;
//   - zipf: at random with a few blocks much more often than the others, as a heap is used; which
//     blocks are the frequent ones is random too.
//
// Jobs (numjobs) go through the same part of the file independently; each may have several requests
// outstanding (iodepth).
//
// # Engines
//
// psync is pread(2). mmap maps the file and takes page faults, as the vCPU of a virtual machine
// does. In Go a page fault needs care. A goroutine that touches a page of a FUSE file is stuck in
// user mode until the page comes: the garbage collector cannot stop it, so that the whole program
// waits for the server; if the server waits for this program in turn, for ever. And when the server
// dies, the touch is a SIGBUS. So no Go code ever touches the mapping here. A page is faulted in by
// madvise(MADV_POPULATE_READ), which takes the same way through the kernel as a touch but is a
// system call: the scheduler knows that the thread is away, and what cannot be read is an error
// (EFAULT). Where bytes are needed, to verify them, the kernel copies them out of the mapping by
// process_vm_readv(2), which cannot fault in user mode either. On kernels before 5.14, which lack
// MADV_POPULATE_READ, process_vm_readv does both.
//
// What is timed is the madvise or the pread alone, with what Go adds to a system call (about 0.1
// us, and where the thread slept, the time until its goroutine has a processor again). Verification
// is not timed, but the run takes longer by it, so the throughput is lower.
//
// # Results
//
// Latencies are kept in a histogram with steps of 1.6 % ([Histogram]), so that memory is bounded
// however long a run is. A read that fails ends the run, or is counted (ContinueOnError); a block
// that differs from the source is counted, and the first ones are named.
package readbench
