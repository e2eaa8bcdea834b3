// Package torture lives random lives of a store, through package index and through the command line,
// and compares all that comes out with a plain model: a map from name to bytes.
//
//	go test ./tests/torture                              about 60 s, another life each time
//	go test ./tests/torture -life 1h                     a long one
//	go test ./tests/torture -run Package -seed S         the life that a failure printed
//
// A life is drawn from its seed alone. What depends on time (the instant at which a process is
// killed) is drawn from it too, but hits where it hits.
//
// TestPackage lives through package index: imports of fresh images and of later versions of them,
// under names in no order, working sets of every shape, removals, collections, indexes lost, old
// and made again, blob operations that fail, images that stay open meanwhile. TestCommand does it
// through the command line, with processes that are killed, mounts that are read in every way by
// other processes, and servers that die. TestDamage damages packs and roots, and wants of every way
// of reading an error or the right bytes. TestTogether does it all at once, in several processes.
//
// For long lives of a store that loses its power see TestCrashRig of package index.
package torture
