// Package wss knows working sets: the record of which pages of guest memory a machine touches, how
// well a restore did by such a record, and how long it took until the machine was usable. It knows
// nothing else of thaw; everything here works for any VMM.
//
// The ideas are those of Zhang, Garthwaite, Baskakov and Barr, "Fast Restore of Checkpointed Memory
// using Working Set Estimation" (VEE 2011), called VEE'11 below.
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
// [Counts] are the columns of the poster's table, in pages: prefetched (brought in before the
// guest's first instruction), skipped (prefetched and then touched: a fetch that was spared) and
// lazy (touched, but fetched on demand). From them come precision, skipped/prefetched, and recall,
// skipped/(skipped+lazy): the "98.6 %" and "99.2 %" of VEE'11 are recalls. A touched page is either
// skipped or lazy; all of them are counted over a stated window after the start. [Bitmap] holds
// pages, [Count] does the counting.
//
// # Stalls
//
// A stall is time in which the guest waits for a page. A [StallLog] collects the requests of a
// server: requests that overlap in time are one stall (their union). What it gives is a
// [StallSnapshot], the form of stalls in JSON; [Interval] and [Timeline] are the form in which
// questions are asked of them.
//
// A server sees a request from its arrival to its answer. What the guest waits for besides, to be
// put to sleep, for the server to be woken, and to be woken again, is not in it: some 15 to 20 us a
// page with FUSE, which is more than the server's own time where pages come from memory, and
// little where they come from a disk. A stall that the VMM or the kernel measured at the vCPU is
// an [Interval] too, and serves the same.
//
// # Utilisation: MMU
//
// VEE'11, section 2.2, takes a measure from garbage collection: the guest is the mutator, a page
// that comes on demand is a pause. The utilisation of a window of time is the share of it that was
// not stalled, and MMU(w), the minimum mutator utilisation, is the least utilisation of any window
// of length w. It tells apart what averages do not: 100 stalls of 10 ms spread over 10 s leave 90 %
// of every second, the same stalls in a row leave nothing of one second.
//
//	stalls    ██████            ██ ██             █
//	time      0         1         2         3         4 s
//	window    └────w───┘ 0.4    └────w───┘ 0.6
//
// # Time to responsiveness: TTR
//
// VEE'11, section 2.3, asks when the damage is over:
//
//	TTR(w, u) = min { t | MMU(w) over all t' >= t  is at least  u }
//
// the earliest time from which on every window of w seconds leaves the guest at least the share u.
// It is counted from the moment at which the user asked for the restore, so that the prefetch is
// part of it, and makes eager, lazy and working-set restores comparable by one number. VEE'11 uses
// w = 1 s throughout and finds u = 70 to 80 % by comparison with the applications' own measures
// (section 5.3). The edge cases, as the paper states them:
//
//   - u = 0: TTR is 0, "a VM that can tolerate any degree of performance degradation … can be
//     considered restored right away";
//   - u = 100 %: TTR is "the time that the last page was restored on-demand";
//   - eager restore has the same TTR for all w and all u (above 0), "because eager restore does not
//     impact the performance of a VM after it starts".
//
// A worked example. A restore prefetches for 1 s; half a second after its start the guest stalls
// for 300 ms, and never again. With w = 1 s and u = 80 %, 200 ms are allowed in each second. The
// windows that begin at the start hold all 300 ms; those that begin at 1.6 s, 100 ms into the
// stall, hold 200. So TTR is 1.6 s; with u = 70 % it would be 1 s, with u = 100 % it is 1.8 s.
//
// Nobody watches for ever, so TTR is answered from the windows that lie in the observation, and is
// "not seen" if the last of these is too bad. [Timeline.MMU] and [Timeline.TTR] are exact: they
// look at the windows that start or end where a stall does, and there are no others at which a
// greatest or least value can be taken. Both cost O(n log n).
//
// [Timeline.TTRCurve] is TTR for all u at once. [Agree] compares two views of the same stalls, the
// VMM's by vCPU and the server's by request, with the error that was stated for them.
//
// # The application's own measure
//
// [Pace] is how fast a guest did its work. [SteadyOf] gives its undisturbed pace with the standard
// deviation, [Pace.Recovery] the time from which on it kept up with one deviation below that: the
// "back to 30 frames a second" and "8307 ± 440 operations" of VEE'11.
//
// # The report
//
// A [Report] of several [Method]s prints the poster's table with recall, precision, restore time,
// TTR and recovery. Methods of one name are repetitions of it: the table has medians, and the
// least and the greatest under them. It draws three figures as SVG: the poster's (the fraction of
// time spent fetching memory, over time, one panel a method, before and after the guest's first
// instruction), TTR over u, and the pace of the guests. [Report.WriteHTML] makes one page of all
// that, which opens without a network; its JSON is that of `thaw demo`.
//
// # Pictures of a set
//
// [Set.Heat] shows where in guest memory pages were touched first, and when, as characters or as
// SVG; a [Matrix] shows how much several sets, or the sources of one, have in common.
//
// # Clocks
//
// Times in a Set count from the start of the recording; those of a StallLog from its origin; those
// of a Method from the moment at which the restore was asked for. [StallSnapshot.Intervals] goes
// from the second to the third.
package wss
