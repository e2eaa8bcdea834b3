// Package index is the store: many checkpoints in little space, one page of them in a few
// microseconds.
package index
