// Package guest has the guest programs of the VMM: bare machines of a few KB which do a known piece
// of work and check every byte of memory that they read.
//
//	heap        transactions over a skewed heap, as many as it can
//	stream      a player: 30 frames a second out of a small part of a big cached file
//	idle        nearly nothing, ten times a second
//	random:PCT  PCT % of memory, each page once a round, in random order
//	pair        two vCPUs that check each other's memory, round by round (for tests of the VMM)
//	registers   holds known values in all registers and checks them (for tests of the VMM)
//
// They are freestanding C and a little assembly under src/, linked to flat binaries under bin/,
// which are embedded. `go generate ./vmm/guest` builds them again; a test compares.
//
// # The pages
//
// All programs but registers and pair fill memory first: page i holds a function of the seed, its
// frame number (gfn) and its version, compressible about 3:1, no two pages equal, none zero. From
// then on every page that is read is read whole and compared with what it must be. A page that is changed
// gets its next version. Versions stand in table pages with a hash, theirs in root pages, and
// theirs in the program's own data: so an old page is an error too, even when the table page that
// tells its version is as old. What is found wrong goes to the VMM by port: gfn, offset, expected,
// found; the run ends there.
//
// Everything random is derived from the seed, and the programs keep their state in their memory: a
// checkpoint that is restored twice does the same work twice, in the same order.
//
// # Boot
//
// The VMM loads the binary at [LoadAddr], writes a [Boot] page at [BootAddr], and enters it in ring
// 3 on each vCPU that the program is for: with the vCPU's number, a stack of its own below
// [StackTop], the right to use ports, and all memory mapped to itself. Package vmm describes the
// machine around it.
package guest

//go:generate ./src/build.sh
