// Package meter counts what happens over time, in bounded memory: a [Series] of units per slice of
// time, the moments at which so many of them had been done ([Marks]), and when vCPUs waited for pages
// ([SampleStalls]). What it asks of a vCPU is the interface
// [VCPU]; the clocks themselves are package vcpu's.
package meter
