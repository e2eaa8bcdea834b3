// Package scan estimates the working set of a running machine from outside, by the access bits of its
// page tables: the "A-bit scanning" of VEE'11, for any VMM. It does not depend on KVM or QEMU: a VMM
// implements the small interface [Guest].
//
//	tables, err := scan.NewTables(guest, scan.TableOptions{})
//	s := scan.New(tables, scan.Options{Within: 10 * time.Second})
//	set, err := s.Estimate(ctx, 10*time.Second)   // sweeps for so long
//
// # Sweeps and generations
//
// A sweep pauses the guest, reads and clears the access bits in all of its page tables, flushes the
// vCPUs' translations, and resumes the guest. Pages whose bits are set at the next sweep were touched
// in between. [Scanner] stores for each page the last sweep that found it, as CLOCK does. The working
// set is the pages touched within a time T ([Options].Within). T should be the time that a restore
// takes, because the guest needs the pages that it touches in that time. The order of touches between
// two sweeps is not known, so the set is ordered by recency: the most recent generation first, and
// within one generation ascending pages (long runs, cheap to fetch), those that share a bit with others
// last. The time of a run is its age. So a limit on the size of the set keeps the pages that were
// touched last.
//
// The first sweep gives no information: its bits may have been set at any time since the boot.
//
// # What it costs
//
// The guest is paused for a sweep, and then the next touch of each page is slower, because its
// translation was flushed (a refault). The next sweep waits until both costs are within the budget, by
// default 1 % of the guest's time. So the budget determines the interval between sweeps. If it is
// longer than T, the last interval counts completely, and the record says so.
//
// # Page tables
//
// [Tables] walks page tables of 4 and 5 levels, with pages of 4 KiB, 2 MiB and 1 GiB. Their contents
// are not trusted: each table page is read once in a sweep, and at most [TableOptions].MaxTables of
// them; entries that point outside of RAM or have reserved bits set are skipped and counted.
//
// The CPU reads page tables, so a table in which a bit was set counts as a touched page itself: a
// restore needs it, too.
//
// If the bit of a directory entry is clear, nothing below it was translated through it since the bit
// was cleared, so a sweep does not look there. This requires that vCPUs set the bits of directories
// whenever they set the bit of a page, which is the case if the flush also drops cached directory
// entries. The scanner verifies it: the first sweeps, and every 16th, look everywhere. If more than 1 %
// of the bits are found below clear directories, all later sweeps look everywhere.
//
// The bit of a 2 MiB page says that at least one of 512 pages was touched. All of them are counted,
// after the pages with their own bit, except pages that the host says never had content ([Presence]).
// The bit of a 1 GiB page is too coarse and is not counted; the record says how many there were. (A
// kernel that maps all of memory with such pages touches them all the time.)
//
// # Address spaces
//
// A vCPU's CR3 shows only the process that is running. Other address spaces are found in memory by
// their upper half: kernels map themselves into every address space by the same entries. [Tables]
// searches for such pages between sweeps, while the guest runs, and also remembers the address spaces
// that vCPUs have used. With page table isolation a process has two neighbouring uppermost tables. Both
// are walked, because bits are set in the one that is in use.
//
// Clearing bits in a page that is not a page table would corrupt the guest. So nothing below a table
// that was only found is changed until a vCPU has set bits in it. Each time before that, the tables
// below it are checked while the guest is paused. A table that shares lower tables with another is a
// copy, and is not changed.
//
// # Without registers
//
// With [TableOptions].Unseen nobody can read the vCPUs' registers, so no table is certain. All of memory is
// searched for pages that look like uppermost tables, and of which the upper half maps the page itself,
// as Linux maps all of its memory (package pagetable has the search). These are only found, so nothing
// below any of them is changed until a vCPU has set bits in it; the upper half, which they share, is
// walked only in sweeps in which bits of it were set again in one of them, and after all tables below it
// were checked like the others. If two tables that share lower tables both seem to be in use, both are
// left out. The self-test waits for bits of entries for the kernel, in any of the uppermost tables: whatever
// a vCPU does when it continues, it needs one of them. But a clear bit proves nothing, because it is not
// known whether a vCPU runs. If no bit is set for several seconds, the test is repeated, and then fails.
//
// # The self-test
//
// How to make vCPUs set bits again depends on the hypervisor: with nested paging a TLB flush is enough;
// shadow page tables must be dropped. A [Guest] lists the possible ways, and [Tables] uses the first
// that passes a test: whatever a vCPU does when it continues, it touches the page that it executes, so
// the bit of that page must be set again. A hypervisor that interprets some instructions may set this
// one bit itself. So a cheap way must also bring back about as many bits as the most thorough way. If
// no way passes, or the chosen one stops working later, the result is an error ([ErrNoBits]), not an
// empty set.
//
// # The effect on the guest
//
// Sweeps clear access bits that the guest uses, too. So the guest's own page replacement, if it is
// active, may take pages to be colder than they are.
package scan
