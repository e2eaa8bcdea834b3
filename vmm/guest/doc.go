// Package guest has the guest programs of the VMM: programs of a few KB that run without a kernel, do a
// known amount of work, and check every byte of memory that they read.
//
//	heap        transactions over a skewed heap, as many as it can
//	stream      a player: 30 frames a second out of a small part of a big cached file
//	idle        nearly nothing, ten times a second
//	random:PCT  PCT % of memory, each page once a round, in random order
//	pair        two vCPUs that check each other's memory, round by round (for tests of the VMM)
//	registers   holds known values in all registers and checks them (for tests of the VMM)
//
// They are written in freestanding C with a little assembly (src/) and linked to flat binaries (bin/),
// which are embedded in the package. `go generate ./vmm/guest` builds them again; a test compares the
// result with bin/.
//
// # The pages
//
// All programs except registers and pair fill memory first: the contents of a page are a function of
// the seed, its frame number (gfn) and its version. They compress about 3:1; no two pages are equal,
// and none is zero. After that, every page that is read is read completely and compared with the
// expected contents. A page that is changed gets the next version. The versions of pages are in table
// pages, with a hash; the versions of table pages are in root pages, and those of root pages in the
// program's data. So an old page is detected, even if the table page with its version is old as well.
// An error is reported to the VMM by port: gfn, offset, expected and found word. The run ends there.
//
// All random numbers are derived from the seed, and the programs keep their state in memory, so two
// restores of one checkpoint do the same work in the same order.
//
// # Boot
//
// The VMM loads the binary at [LoadAddr], writes a [Boot] page at [BootAddr], and enters the binary in
// ring 3 on each of the program's vCPUs, with the vCPU's number as argument, its own stack below
// [StackTop], access to the ports, and all memory mapped at its physical address. Package vmm describes
// the machine.
package guest

//go:generate ./src/build.sh
