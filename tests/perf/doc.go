// Package perf measures thaw against its peers, side by side on one machine in one run.
//
//	go test ./tests/perf -run TestFigures -v -perf [-image FILE] [-second FILE] [-figures OUT.json]
//
// prints a table: what was measured, thaw, the peer, the ratio, the target. Without -perf the same
// code runs on a small image with few samples, as a test of itself; such figures mean nothing.
// -image is the memory of a real guest (tests/qemu makes one: go test ./tests/qemu -qemu.keep DIR),
// -second a later checkpoint of the same machine; without them synthetic images are used, and the
// table says so.
//
// # What is compared with what
//
//   - A lazy fault: one thread touches non-zero pages of a mapping in random order, MADV_RANDOM,
//     client pinned to one CPU, packs in the host's page cache. Again with the server on that CPU:
//     without the wake-up of an idle CPU, which costs more than all else and varies. Peer: the
//     leanest go-fuse server there can be, which answers from a slice of RAM (ramfs.go).
//   - First touch of a prefetched page: peer: the same pages of a local file that lies in the page
//     cache, those pages alone, mapped the same way.
//   - Prefetch of a working set with a cold disk: the time of the open. Peers: an O_DIRECT read of
//     the same bytes from one contiguous file, and a restore in the manner of REAP (Ustiugov et
//     al., ASPLOS 2021): that read and then UFFDIO_COPY of each page.
//   - Import: bytes of image a second, and bytes that are not zero a second.
//   - Stored size: all files of the store but the segments, against `zstd -3` of the whole image;
//     the second checkpoint against its changed pages through `zstd -3`.
//
// TestImport measures an import beside `zstd -3 -T2`, `zstd -1 -T2` and cp of the same file, all of them
// synced:
//
//	go test ./tests/perf -run 'TestImport$' -v -perf [-image FILE]
//
// TestPrefetchParts measures the parts of a prefetch one by one: opening the image, reading, decoding,
// pushing, and of the push the notifications alone, each on the clock and in CPU time. Its pushes go
// into a file that the test serves itself and another process has open. -image and -perf are as above.
//
// TestAhead shows what a lazy guest costs that touches a set back to back, in the order of the layout, of
// the set or of neither, with pushes and without, beside the prefetch of the set:
//
//	go test ./tests/perf -run 'TestAhead$' -v -perf
//
// TestLocality counts what locality blocks are worth, against single pages and 64 KiB of physical
// addresses, as Halite does (USENIX ATC 2013); tests/e2e has the same of a real Linux.
//
// TestFleet imports the checkpoints of a fleet (package fleet: ten machines of 256 MiB in five states, made
// of the files of this host), and gives the same files to restic; TestFleetOfGuests does so with real
// guests. It prints the bytes that are stored for a checkpoint, the time for all, for the last one, and for
// restoring one, which is compared. Restic has its repository on the same disk, a host for each machine and
// no cache; its compressions are "auto" and "max", which takes long:
//
//	go test ./tests/perf -run TestFleet -v -perf -timeout 2h [-fleet.restic auto] \
//		[-fleet.mib 256] [-fleet.seed N]
//
// TestManyCheckpoints measures commands in a store of 1,000 checkpoints that has the structures of 100 GB of
// packs: every page is there, with eight bytes in it. To make it takes a quarter of an hour of two CPUs;
// -scale.store keeps it, and -scale.pages makes it smaller:
//
//	go test ./tests/perf -run TestManyCheckpoints -v -perf -timeout 2h [-scale.store DIR] [-scale.pages 8192]
//
// TestLoad restores 64 machines at once from 8 images, checks every byte that they touch, and lets 64 fault
// in pages at random, in turn with as many readers of a plain FUSE file system. TestManyOpens opens 1,000
// images at once by a server that may have 256 files. Both print what the server takes. TestSmallImports
// imports 500 images of 4 MiB, beside cp and zstd:
//
//	go test ./tests/perf -run 'TestLoad$|ManyOpens|SmallImports' -v -perf [-load.machines 64]
//
// Rounds of thaw and of its peer alternate, and the ratio of their medians counts, because the
// machine's other users and its CPU's clock change over a run. Host memory is touched first: on a
// virtual machine the first use of a page of RAM costs more than all that is measured here.
package perf
