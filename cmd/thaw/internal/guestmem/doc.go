// Package guestmem reads the memory of saved machines as other programs wrote it.
//
// # What it gives
//
// [Open] looks at a path, [OpenStream] at a stream. Either recognises a format, by content first and by
// names second, and returns a [Saved]: the memory, the other files that belong to the checkpoint, where
// the memory lies in the guest's address space, and what there is to say of it. It knows no store and no
// VMM of ours.
//
// The memory is an image, a row of pages. Formats that have the guest's memory in packed regions
// (Firecracker, Cloud Hypervisor, QEMU, VMware) keep them packed, and the [Region]s say which addresses
// they have, so that a page of the image is a page of the VMM's file. In the image of a dump (ELF core,
// LiME) an offset is a guest-physical address, and what is between the regions is zero.
//
// # Two ways of reading
//
// An image is a [Memory], if it can be read anywhere, or a [Stream], if it can be read only once: what is
// compressed as a whole, and what comes from the standard input. A Stream is never copied aside: its
// reader gets each page when it comes.
//
// A format that is a sequence (a stream of QEMU, LiME) has one parser for both ways. It goes through an
// input from the beginning to the end and gives each piece of memory to a sink. The sink of a file notes
// where the piece lies and skips it: pieces of any length (pieceMemory), or single pages behind headers
// of their own (pageTable, 8 bytes a page). The sink of a stream, the feeder, reads the bytes and hands
// them on.
//
//	file     parser ──► mapper or pageTable ──► ReadAt by many goroutines
//	stream   parser ──► feeder ──► put(first page, pages)
//
// # Invariants
//
//   - What begins with a known magic is converted or refused, never taken for memory byte for byte. A
//     directory that a VMM of thaw wrote is not looked into: page 0 is the guest's, which may write any
//     magic there.
//   - A file that lies, was cut short or is damaged is a [FormatError], which says what is wrong and
//     what to do. What cannot be checked is said in [Saved.Warning], and what cannot be restored from in
//     [Saved.Reading].
//   - Numbers in a file never make it allocate more than the file has bytes, up to fixed bounds.
//   - A file that changes while it is read is an error.
//   - Zeros that are written and pages that are not there are different things where the format means
//     it: a page that comes again as zeros is zero; the hole of a diff is the parent's page.
//
// # Where to read on
//
//	magic.go            all magics, and what helps with formats that are not read
//	open.go, stream.go  how a path and a stream are recognised
//	input.go, sink.go   what parsers stand on
//	pieces.go, pagetable.go
//	                    images in files
//	firecracker.go, diff.go, cloudhypervisor.go, qemuparser.go, mappedram.go, libvirt.go, elf.go, lime.go,
//	vmware.go, decompress.go
//	                    one format each, described byte for byte at its beginning
//	qemulayout.go       where the pages that were taken out of a stream of QEMU can be put in again
package guestmem
