// Package learn finds out, restore by restore, which pages belong into the working set of a checkpoint. It
// knows no server and no store: it is told what a restore has shown ([Restore]), and says what the next one
// should bring ([Plan]) and whether a new set has proved itself. Everything here works for any VMM whose
// memory is served by something that sees demand faults.
//
// # What a restore shows
//
// A page that was brought before it was touched causes no fault, so a server of files cannot see whether it
// is used. Two things can be seen. A page that is not in the set and is asked for was missed. A page of the
// set that was left out on purpose shows by its fault that it is used. So each restore leaves out
// ([Record.Hold])
//
//	the sample  1 % of the pages of the set at random, at least 8, at most a sixteenth of the set
//	the checks  pages that were left out before and not asked for, and some near them: at most 4 % of the set
//
// The sample alone is the measure: it is drawn without regard to what is known. With S pages in the set, of
// the sample u of h used, and m pages missed:
//
//	precision = u/h
//	recall    = S*u/h / (S*u/h + m)
//
// The checks are where pages that are used no more are looked for: such pages lie together.
//
// # Scores
//
// The unit is one page. A page has a score: a restore in which nobody can see it leaves it as it is, one in
// which it is seen makes it s*0.75 + 1, at most 2, and one in which it could have been seen and was not makes
// it s*0.75. A page outside of the set that was touched in two of three restores has 1.5 or more, and should
// be in it. A page of the set has 1.5 until it is left out, and should leave when it has less than 1, after
// two restores in a row without it. Where there is no set yet, one restore is enough (1). Below 0.25 a page
// is forgotten. At most 65,536 pages outside of the set have a score, those with the highest ones.
//
// # The bound
//
// What is learned never has more pages than a quarter of the guest's, nor than twice those of the set that
// there was before anything was learned. Of too many pages those with the highest scores are taken. A set
// that is larger than that from the beginning only gets smaller.
//
// # The trial of a new set
//
// A change of at least 4 pages and of a 128th of the set makes a candidate. It stays as it is while it is
// tried: restores take turns with the old set, and of each the late and missed pages are summed. After
// [TrialRestores] restores with each
//
//	a candidate with no more pages than the old set is not worse if its sum is at most
//	that of the old set, a sixteenth of that, and a page a restore
//	a larger one has to be better: its sum must be less
//
// If it is, it is proved: it takes the place of the old set. Otherwise it is dropped, and no other is made
// for 4 restores, 8 after the next, 64 at most. Nothing but that changes a set.
//
// # What does not count
//
// A restore that says why it does not count ([Restore.Why]) gets a line in the history and changes nothing
// else. So does one that began with another set than the one that there is by now.
//
// # The record
//
// A [Record] is kept as text, of at most [MaxText] bytes:
//
//	thaw-learned 1                      the format and its version
//	{"image_pages":262144,...}          numbers, the trial and the history, as JSON in one line
//	a 1024 1500                         a page that the candidate adds: gfn, microseconds
//	d 77                                a page that it leaves out
//	p 1025 96 1600                      a score: gfn, 64ths, microseconds
//
// [Parse] refuses what no restores lead to. Whoever loses a record loses what was learned and is not in the
// set yet.
package learn
