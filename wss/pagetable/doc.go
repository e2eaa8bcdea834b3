// Package pagetable reads page tables of guests: 64-bit x86, 4 and 5 levels, large pages. All of thaw
// uses it: package scan for the tables of a running machine, the VMM for a machine that is being
// restored, and an import for the tables in an image.
//
//	registers ── ModeOf ──► Mode, root ──┬── Walk ──────► each entry, depth first, in virtual order
//	                                     └── Translate ─► the entry that maps an address
//
// For the layout of an image it finds which pages are neighbours in an address space of the guest:
// pages that a program uses together are often neighbours in its virtual addresses, but not in physical
// memory (Zhang et al., "Halite", USENIX ATC 2013, section 3).
//
//	image ── Space ── Find ──► roots ── Order ──► address spaces: runs of pages in virtual order
//
// A [Space] is an image with a map from guest-physical addresses to offsets. Roots are the uppermost
// tables of address spaces. Those in the processors' CR3 are known if the VMM has saved them ([Info]).
// The others, of processes that were not running, are searched for in the image ([Space.Find]).
//
// # Hostile guests
//
// All data is read from guest memory, which may contain anything. So no table is trusted: an invalid
// entry (reserved bits, an address without memory) is skipped, a [Walk] asks before it reads a table,
// and [Space.Order] visits a table at most once for each level at which it is used, and lists a bounded
// number of mappings. A wrong order only makes a less useful layout.
//
// # Finding roots
//
// A root has 512 entries that are zero or point to tables in memory. Some lower tables, and some data,
// look the same. A true root is recognised by this: an operating system maps its own page tables, so
// when a page is walked as a root, its upper half must map the page itself, through tables without a
// malformed entry. Linux does that by its map of all physical memory, Windows by an entry of the root
// that points to the root.
//
// All address spaces map the same kernel, by the same entries in their upper halves. So candidates are
// grouped by these entries, one of each group is verified, and the largest group that passes is taken
// as the roots. This also excludes the second root that a kernel with page table isolation has for each
// process, and tables of processes that have ended.
//
// The search reads the image once, without the holes of a sparse image.
package pagetable
