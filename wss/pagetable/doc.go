// Package pagetable reads page tables of guests: 64-bit x86, 4 and 5 levels, large pages. It is the one
// reader of them: package scan walks the tables of a machine that runs by it, the VMM those of one that
// is being restored, and an import those in an image.
//
//	registers ── ModeOf ──► Mode, root ──┬── Walk ──────► each entry, depth first, in virtual order
//	                                     └── Translate ─► the entry that maps an address
//
// For the layout of an image it finds out which pages are neighbours in an address space of the guest:
// what a program uses together lies together in its addresses, and anywhere in physical memory (Zhang
// et al., "Halite", USENIX ATC 2013, section 3).
//
//	image ── Space ── Find ──► roots ── Order ──► address spaces: runs of pages in virtual order
//
// A [Space] is the image and where in it guest-physical addresses lie. Roots, the uppermost tables
// of address spaces, are known from the processors' CR3, which a VMM can write down ([Info]); those
// of processes that just did not run, or all of them, are looked for in the image ([Space.Find]).
//
// # What is believed
//
// Everything is read from guest memory, which may hold anything. So nothing here trusts a table: an
// entry that cannot be one (reserved bits, memory that is not there) is left out, a [Walk] asks before
// each table that it reads, and [Space.Order] visits a table at most once for each level that it is used
// at, whatever points to it. A wrong order has no consequence but a layout that is no better than
// another.
//
// # Finding roots
//
// A root looks like 512 entries that are zero or point to tables within memory. So do some lower
// tables, and some data. What tells a root is that an operating system maps the tables that it
// works with: walked as a root, a page must map itself in its upper half, through tables without a
// malformed entry. Linux does that with its map of all physical memory, Windows by an entry of the
// root that points to the root.
//
// All address spaces have the kernel in common: the entries of their upper halves are the same. So
// candidates are sorted by these, one of each sort is verified, and the largest sort that passes
// are the roots. That also leaves out the second root that a kernel with page table isolation has
// for each process, and tables of processes that have ended.
//
// The search reads the image once. What is not data of a sparse image is not read.
package pagetable
