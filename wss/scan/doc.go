// Package scan estimates the working set of a machine while it runs, from outside, by the access
// bits of its page tables: VEE'11's "A-bit scanning", for any VMM. It knows nothing of KVM or QEMU,
// only a small [Guest].
//
//	tables, err := scan.NewTables(guest, scan.TableOptions{})
//	s := scan.New(tables, scan.Options{Within: 10 * time.Second})
//	set, err := s.Estimate(ctx, 10*time.Second)   // sweeps for so long
//
// # Sweeps and generations
//
// A sweep stops the guest, reads and clears the access bits in all of its page tables, makes the
// vCPUs forget their translations, and lets the guest go on: pages whose bits are set at the next
// sweep were touched in between. [Scanner] keeps for each page the last sweep that found it, as
// CLOCK does, and takes for the working set what was touched within a time T ([Options].Within). T
// should be the time that a restore takes: what the machine touches in that time is what it will
// miss. The order of first touches within an interval cannot be known, so the set is ordered by
// recency: the youngest generation first, within one the pages ascending (long runs, cheap to
// fetch), and last, in each, those that share a bit with others. The time of a run is its age. So a
// bound on the set keeps what was touched last.
//
// The first sweep tells nothing: bits may have been set at any time since the boot.
//
// # What it costs
//
// The guest is paused for the sweep, and pays for the next touch of each page whose translation
// is gone. Both are added up, and the next sweep waits until they are within the budget, 1 % of the
// guest's time if nothing is said. So the interval between sweeps follows from the budget; where it
// is longer than T the last interval counts whole, and the record says so.
//
// # Page tables
//
// [Tables] walks 4 and 5 levels, with pages of 4 KiB, 2 MiB and 1 GiB. What the guest has put there
// is not trusted: each table page is read once a sweep, at most [TableOptions].MaxTables of them;
// entries that point out of RAM or have reserved bits set are left out and counted.
//
// Page tables are memory that the CPU reads, so a table in which a bit was set counts as a touched
// page itself: a restore will fetch it too.
//
// A clear bit in a directory entry means that nothing below was translated through it since the bit was
// cleared, so a sweep does not look there. That is right as long as vCPUs set the bits of directories
// whenever they set that of a page, which holds where the flush drops cached directory entries too. The
// scanner verifies it: the first sweeps, and every 16th, look everywhere, and where more than 1 % of
// the bits are found below clear directories, all sweeps do.
//
// The bit of a large page stands for 512 pages of which at least one was touched. They are all
// counted, after those that have a bit of their own, but for pages that the host says were never
// there ([Presence]). The bit of a page of 1 GiB says nothing and counts for nothing; the record
// tells how many there were. (A kernel that maps all of memory for itself with such pages touches
// them all the time.)
//
// # Address spaces
//
// A vCPU's CR3 shows the process that happens to run. Others are found in memory by their upper
// half: kernels map themselves into every address space by the same entries. [Tables] searches for
// such pages between sweeps, while the guest runs, and keeps those in mind that vCPUs were seen to
// use. With page table isolation a process has two uppermost tables side by side; both are walked,
// as bits are set in whichever is in use.
//
// Clearing bits in a page that is no page table would corrupt the guest. So a table that was only found
// is left alone until a vCPU sets bits in it, and is checked, with the guest standing still, each time
// before anything below it is changed; what shares tables with another is a copy, and is left alone.
//
// # The self-test
//
// Which way to make vCPUs set bits again works depends on the hypervisor: with nested paging a TLB
// flush is enough, with shadow page tables these have to be dropped. A guest lists its ways, and
// [Tables] takes the first that passes a test: whatever a vCPU does when it goes on, it touches the
// page that it executes, so the bit of that page must come back. A hypervisor that interprets some
// instructions may set that one bit by itself, so a cheap way must also bring back about as many bits
// as the most thorough one does. If none passes, or none does later, that is an error ([ErrNoBits]),
// not an empty set.
//
// # What it does to the guest
//
// Access bits that the guest has seen set are cleared, as if the pages had not been used. So the guest's
// own page replacement, if it is at work, takes pages to be colder than they are.
package scan
