// Package torture runs random sequences of operations (lives) on a store, through package index and
// through the command line, and compares all results with a simple model: a map from name to bytes.
//
//	go test ./tests/torture                              about 60 s, another life each time
//	go test ./tests/torture -life 1h                     a long one
//	go test ./tests/torture -run Package -seed S         the life that a failure printed
//	go test ./tests/torture -run Day -day 1 -life 10m    a day of a server, in ten minutes
//
// A life depends only on its seed, except for timing: the time at which a process is killed is drawn
// from the seed, too, but what the process is doing then may differ.
//
// TestPackage uses package index: imports of new images and of later versions of them, under random
// names, working sets of every kind, removals, garbage collections, repackings, indexes that are lost, old or
// rebuilt, blob operations that fail, and images that stay open meanwhile. TestCommand uses the command
// line, with processes that are killed, mounts that other processes read in every way, and servers that
// die. TestDamage damages packs and roots, and requires an error or the right bytes from every way of
// reading. TestTogether does all of this at once, in several processes.
//
// TestDay keeps a store mounted all the time: imports, restores, sets, records, names, collections,
// repackings and clients that are killed. What its server takes (heap, descriptors, goroutines) must not
// become more, and when all checkpoints are removed nothing is left.
//
// For long lives with power failures see TestCrashRig of package index.
package torture
