// Package importer puts a checkpoint into a store: it is where what the store, the VMM and the
// working sets know comes together.
//
// [Open] finds out what a path holds: what another program saved (package guestmem), a checkpoint
// directory or a bare memory file, or a checkpoint of our own VMM, of which a differential one is read
// through its parents. [OpenStream] does so for the standard input. Open refuses memory that is not
// as large as what lies beside it says, or that changes while it is read.
//
// [Source.Import] decides in which order pages are stored, because one read brings a block of them:
// first the working set, by source and vCPU, then what are neighbours in the guest's address spaces.
// The front of the working set, within a limit, is copied into a segment for the prefetch ([Runs]).
package importer
