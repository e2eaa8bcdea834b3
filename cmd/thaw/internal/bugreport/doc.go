// Package bugreport puts together what somebody needs who looks into a fault of thaw: an archive of small
// text files.
//
// It has nothing of what machines had in their memories: only what programs counted and logged, and facts of
// the host. What else is private, the names of checkpoints and the paths of stores and mounts, is replaced by
// words that are the same everywhere in the archive ([Names]), unless it is asked for. Each part that cannot
// be had is named in the archive with the reason: a report is made when things do not work.
package bugreport
