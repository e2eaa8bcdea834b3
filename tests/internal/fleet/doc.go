// Package fleet makes the memories of a fleet: machines of one distribution, each in some states, as a
// store of checkpoints has them after a while.
//
//	f, err := fleet.New(fleet.Spec{Bytes: 256 << 20, Seed: 1, Root: "/usr"})
//	m := f.Machine(3)
//	err = m.Write(path)  // its first state
//	m.Advance()          // the next one
//
// # What it is
//
// The same spec on the same host always gives the same bytes. A machine has
//
//   - a kernel of 8 MiB from 1 MiB on: bytes of the largest file of this host, relocated for
//     each machine, so that a third of its pages differs in a few words;
//   - of the rest 42 % page cache: real files of this host. All machines prefer the same files, and each
//     leaves out a quarter of them. The pages of a file lie in physical memory in runs of 1 to 64,
//     in an order that
//     each machine has of its own; the last page of a file ends with zeros;
//   - 9 % objects of the kernel: arrays of structures with addresses, flags and counters;
//   - 24 % memory of programs: a third text, a third structures with addresses, a sixth nearly empty, a
//     twelfth that does not compress, a twelfth pages of files with relocations. No two machines share
//     any of it;
//   - zeros, which it never used: what is left.
//
// From one state to the next 6 % of the page cache goes and other files come, 15 % of the memory of
// programs and 30 % of the kernel's objects change in a few words, and 4 % of the programs' memory is
// given back and taken anew elsewhere. What is freed keeps its bytes until it is used again, as in Linux.
//
// # What it is not
//
// It is no machine: nobody ran it. The shares are chosen, of a small server after some minutes, and not
// measured; a fleet of databases has more memory of programs, and shares less. Memory of programs is
// made of a few kinds of page and compresses about 3:1, which is like that of real guests, but nobody's in
// particular. The files are of the host that runs the test, so figures of two hosts differ. It has no page
// tables that anything could find, and no working sets: every page is stored by its number.
package fleet
