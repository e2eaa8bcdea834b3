// Package native gives the checkpoints of other VMMs the names and files by which these know them: on a
// mount, in an export, and in the command that restores them.
//
// # What is served
//
// What a checkpoint is tells its info.json, which an import has written ("vmm" and "imported"). So whatever
// is in a store already is served like what is imported now.
//
//	Firecracker       mem = memory; vmstate is stored
//	Cloud Hypervisor  memory-ranges = memory; config.json and state.json are stored
//	QEMU              migration-stream: composed of memory and state
//	libvirt           libvirt-save: composed of libvirt-save-header, memory and state
//
// An alias (=) is the same inode under another name. That is right because the importers (package guestmem)
// keep the regions of these formats packed: a page of memory is a page of the VMM's file. It is not right for
// dumps, which have no VMM.
//
// # A composed stream
//
// It is a migration stream that says the same as the one that was imported, not the same bytes: each page
// comes once, in the order of the addresses, and what is compressed by libvirt becomes raw. The import left
// all but the guest's pages in "state" as they were; the stream is the state with the records of the pages
// put in behind the list of blocks:
//
//	[libvirt's header, format 0]
//	state up to the list of blocks
//	for each block of memory: the record of its first page, with the block's name;
//	    of each other page 8 + 4096 bytes, or 9 if it is zero
//	the rest of state
//
// So where a page lies follows from how many pages before it are zero, which the page map knows, and no table
// is needed: a READ finds its first page by a binary search. The size follows from the numbers in the
// listing, and nothing is read before the file is opened. Pages of zeros are in the stream, because QEMU's
// memory may be a file that has something in it already.
package native
