// Package wss knows working sets: the record of which pages of guest memory a machine touches, how
// many of them a restore had brought in time, and when the guest waited for the others. It knows
// nothing else of thaw; everything here works for any VMM. Package wss/report says how good a restore
// was, in numbers, tables and figures.
//
// The ideas are those of Zhang, Garthwaite, Baskakov and Barr, "Fast Restore of Checkpointed Memory
// using Working Set Estimation" (VEE 2011), called VEE'11 below.
//
// Package wss/learn learns from restores which pages belong into a set.
//
// # The record
//
// A [Set] says which pages were touched, in the order of first touch, each run of pages with its
// time, its [Source] and, where it is known, the vCPU. A [Recorder] makes one out of first touches;
// an estimator adds runs of its own source. It is kept beside a checkpoint as the text file
// `working-set`:
//
//	thaw-working-set 1                    the format and its version
//	pages 262144                          size of the image that the gfns belong to
//	window 10s                            how long was recorded
//	way read trace of a lazy restore      how, in words
//	created 2026-11-22T12:00:00Z
//	                                      a blank line ends the header
//	1024 16 0 read                        gfn, count, microseconds, source [, vCPU]
//	3 1 120 read 0                        … one line a run, in first-touch order
//
// Only the first line and `pages` must be there. Header lines that a reader does not know are kept
// and written back; a vCPU that is not known is left out or "-"; further fields of a run are for
// later versions and are left out by this one. Within one source a page stands at most once.
//
// The file may come from anywhere. [Parse] refuses what is malformed, beyond the image, or beyond
// the limits of this package with an error that names the line and matches [ErrBadSet]; it never
// needs more than some hundred bytes for each run that the text really has, however large the image
// is that it claims.
//
// # Counting
//
// [Counts] are the columns of the table on the poster to VEE'11, in pages: prefetched (brought in
// before the guest's first instruction), skipped (prefetched and then touched, so that no fetch on
// demand was needed) and lazy (touched, but fetched on demand). From them come precision,
// skipped/prefetched, and recall, skipped/(skipped+lazy): the "98.6 %" and "99.2 %" of VEE'11 are
// recalls. A touched page is either skipped or lazy; all of them are counted over a stated window
// after the start. [Bitmap] holds pages, [Count] does the counting.
//
// # Stalls
//
// A stall is time in which the guest waits for a page. A [StallLog] collects the requests of a
// server: requests that overlap in time are one stall (their union). What it gives is a
// [StallSnapshot], the form of stalls in JSON, and from that a list of [Interval]s.
//
// A server sees a request from its arrival to its answer. The guest waits
// longer: its thread is put to sleep, the server is woken, and the thread is woken again. That takes
// some 15 to 20 us a page with FUSE, which is more than the server's own time where pages come from
// memory, and little where they come from a disk. A stall that the VMM or the kernel measured at the vCPU is
// an [Interval] too, and serves the same.
//
// # Clocks
//
// Times in a Set count from the start of the recording; those of a StallLog from its origin.
// [StallSnapshot.Intervals] moves them to another clock, such as that of package report, whose 0 is the
// moment at which a restore was asked for.
package wss
