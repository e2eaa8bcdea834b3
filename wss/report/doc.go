// Package report says how good a restore was: the measures of VEE'11 (Zhang, Garthwaite, Baskakov and
// Barr, "Fast Restore of Checkpointed Memory using Working Set Estimation", VEE 2011) over the stalls
// and the counts of package wss, and tables, figures and a page that compare several restores.
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
// An observation has an end, so TTR is answered from the windows that lie in the observation, and is
// "not seen" if the last of these is too bad. [Timeline.MMU] and [Timeline.TTR] are exact: they
// look at the windows that start or end where a stall does, and there are no others at which a
// greatest or least value can be taken. Both cost O(n log n).
//
// [Timeline.TTRCurve] is TTR for all u at once. [Agree] compares two views of the same stalls, the
// VMM's by vCPU and the server's by request, with the error that was stated for them.
//
// # What a second forgives
//
// TTR(1 s, 80 %) lets a machine stand still for 200 ms of each second, so a lazy restore whose pages
// come quickly passes for responsive at once. What stands beside it does not forgive that:
//
//   - TTR(100 ms, 95 %), the same definition (VEE'11, section 2.3, leaves w and u to the reader) for
//     windows that a user can just notice: at most 5 ms of any 100 ms are stalled;
//   - the longest stall and the total stall, in the time from the guest's first instruction to the
//     end of the observation ([Method.LongestStall], [Method.TotalStall]). A stall is time in which at
//     least one READ was outstanding (package wss): several at once count once. The wait before the
//     first instruction is not part of it, but of the restore time;
//   - the delay of the guest's own work against a warm run, below.
//
// # The application's own measure
//
// VEE'11 judges its measure by what the applications say of themselves (sections 4 and 5).
//
// The delay is how much later than in a warm run a guest had done its first N units of work, both
// counted from the request. The warm run ([Report.Warm]) is a restore of the same machine with all
// of its memory in the page cache, so what is left of its time is what any restore costs. N is the
// greatest power of ten that the warm run did in its first second, and a tenth of that
// ([Report.Points]). The times are exact: a guest that reports its work stops for that moment, and
// its machine notes the time ([Mark]).
//
// [Pace] is how fast a guest did its work. [SteadyOf] gives its undisturbed pace with the standard
// deviation, [Pace.Recovery] the time from which on it kept up with one deviation below that: the
// "back to 30 frames a second" and "8307 ± 440 operations" of VEE'11.
//
// # The report
//
// A [Report] of several [Method]s prints the table of the poster to VEE'11 with recall, precision,
// restore time, TTR, stalls, delays and recovery. Methods of one name are repetitions of it: the table
// has medians, and the least and the greatest under them. [Report.Headline] and [Report.Gain] say in
// a sentence which method was best, with the figures of the table. It draws four figures as SVG: that
// of the poster (the share of time spent fetching memory, over time, one panel a method, before and
// after the guest's first instruction), TTR over u, the first work of the guests, and their pace.
// [Report.WriteHTML] makes one page of all that, which opens without a network; its JSON is that of
// `thaw demo`.
//
// # A set in numbers
//
// [Summarize] says in a few numbers how large a set is, where in guest memory its pages lie and when
// they were touched; a [Matrix] says how much several sets, or the sources of one, have in common.
//
// # Clocks
//
// Times of a [Method] count from the moment at which the restore was asked for, those of a [Pace] from
// the guest's first instruction. [wss.StallSnapshot.Intervals] gives stalls on the clock of a Method.
package report
